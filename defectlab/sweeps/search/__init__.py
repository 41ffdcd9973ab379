"""Searching a space by validation images: proposals, pruning, rounds, the study on disk."""
