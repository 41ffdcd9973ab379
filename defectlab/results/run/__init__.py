"""A run's folder: its record, scores, arrays, place and log."""
