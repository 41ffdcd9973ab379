"""anomalib's detectors made exact and reloadable."""
