"""Gaussians of features at each position: fitting, Mahalanobis distances, incremental sums."""
