"""Training and testing: anomalib's engine with checked options, callbacks, trackers, and a record of every run."""
