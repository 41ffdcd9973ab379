"""PatchCore: distance to the nearest patch of a coreset of good ones."""
