"""The engine: anomalib's Lightning loop, with options checked first and every run on record."""
