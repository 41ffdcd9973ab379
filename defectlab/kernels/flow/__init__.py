"""Normalising flows: coupling blocks and their evaluation on a grid of positions."""
