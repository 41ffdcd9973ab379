"""Names of the metrics, their order, and the metrics for which lower values are better."""

BARE_METRICS = ("image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score")


LOWER_IS_BETTER = ("image_FPR_at_95TPR", "pixel_FPR_at_95TPR")


_OF_A_LEVEL = (
    "AUROC", "F1Score", "AUPR", "AUPRO", "FPR_at_95TPR", "TPR", "TNR", "accuracy", "precision", "recall",
)  # fmt: skip


METRICS = frozenset(f"{level}_{name}" for level in ("image", "pixel", "part") for name in _OF_A_LEVEL)


# Chosen on the test images themselves: a column of their own name, never marked as best.
ORACLE = {metric: f"oracle {metric}" for metric in ("image_F1Max", "pixel_F1Max")}


def is_oracle(header: str) -> bool:
    """Return whether a column, given its header, holds values chosen on the test images."""
    return header in ORACLE.values()


def is_metric(header: str) -> bool:
    """Return whether a column, given its header, holds a metric of images or pixels."""
    return header in METRICS
