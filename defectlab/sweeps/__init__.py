"""Sweeps: many configurations at little more than the price of a few, each on record as if it had been run alone.

`config` and `space` say what is varied, `plan` what will be computed, `patchcore` and `padim` share what configurations
have in common, `scored` writes their records, `run` does it all.
"""
