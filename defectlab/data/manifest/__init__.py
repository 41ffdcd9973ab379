"""Creation of a dataset's manifest from a folder: layout, pairing of masks, split, groups and findings."""
