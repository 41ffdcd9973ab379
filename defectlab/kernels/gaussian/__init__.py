"""Gaussians of features at each position: fitting, distances, sums that are added to."""
