"""Sweeps: configurations that share computations, each recorded as if it had been run alone.

`config` and `search_space` say what is varied, `plan` what will be computed; `patchcore`, `padim` and `subspace`
share what configurations have in common, `record_scores` writes their records, `sweep` runs all. `run_many` trains
experiments one by one.
"""
