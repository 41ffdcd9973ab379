"""Datasets of images on disk, with a seeded split manifest and batches for training."""
