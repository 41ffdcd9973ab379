"""A run's folder: its record, scores, arrays, location and log."""
