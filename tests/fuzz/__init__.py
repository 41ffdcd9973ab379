"""Hostile input: each target damages good files by a seed and hands them to one reader. `make fuzz` runs them long."""
