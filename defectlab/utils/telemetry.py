"""Telemetry of other packages, switched off: nothing leaves the machine unless a person asks for it."""

import os

# anomalib imports mlflow and wandb wherever they are installed; these are read when they are imported or first used.
SWITCHES = {"MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}


def switch_off_telemetry() -> None:
    """Set each package's own switch, unless the environment says otherwise already; child processes inherit it."""
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
