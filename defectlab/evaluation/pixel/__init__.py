"""Pixel metrics from maps and masks: exact counting in blocks, thresholds, curves, bootstrap."""
