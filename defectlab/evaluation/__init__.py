"""Pure numpy functions over raw scores and raw anomaly maps."""
