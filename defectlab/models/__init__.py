"""Detectors of anomalib and others, with checked options, local backbones and checkpoints that reload."""
