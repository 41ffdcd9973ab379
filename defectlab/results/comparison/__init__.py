"""Comparison of runs: ranking, paired tests, repeats over seeds, and means over datasets."""
