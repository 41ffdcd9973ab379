"""The command line, a module a group of commands. Nothing here imports torch until a command needs it.

A new command: its function and arguments in a module of its own, and one line in `main.COMMANDS`.
"""

from defectlab.cli.main import main

__all__ = ["main"]
