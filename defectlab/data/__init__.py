"""Images on disk, to a seeded split manifest, to batches."""
