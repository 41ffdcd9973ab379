"""From a folder to a manifest: layout, pairing of masks, split, groups, findings."""
