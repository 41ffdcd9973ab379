"""Variational autoencoders: reconstruction error as score."""
