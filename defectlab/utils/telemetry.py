"""Switches that turn off the telemetry of other packages, so that no data is sent unless the user enables it."""

import os

# anomalib imports mlflow and wandb wherever they are installed; these are read when they are imported or first used.
SWITCHES = {"MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}


def switch_off_telemetry() -> None:
    """Turn off telemetry by environment variables that are not set already; child processes inherit them."""
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
