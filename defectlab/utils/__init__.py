"""What every package needs and nothing of ours is imported for: errors, paths, files, validation, logs, progress."""
