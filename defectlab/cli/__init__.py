"""The command line, with one module for each group of commands. Torch is imported only when a command needs it.

A new command: its function and arguments in a module of its own, and one line in `main.COMMANDS`.
"""

from defectlab.cli.main import main

__all__ = ["main"]
