"""Evaluation of raw scores and raw anomaly maps: metrics, intervals, tests and thresholds, in numpy and scipy."""
