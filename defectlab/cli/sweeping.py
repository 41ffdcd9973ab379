"""The command that runs many configurations."""

from typing import Any

from defectlab.cli.command import Command
from defectlab.sweeps.command import add_sweep_arguments, run_sweep_command, sweep_arguments


def sweep(**settings: Any) -> int:
    """Run many configurations, with the work they share done once; goes on where an earlier call was ended."""
    return run_sweep_command(**settings)


SWEEP = Command(sweep, add_sweep_arguments, sweep_arguments)
