"""Shared utilities that import no other DefectLab package: errors, paths, files, validation, logs, progress."""
