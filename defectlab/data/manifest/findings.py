"""Findings of a dataset: all problems are collected, then reported in one error."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from defectlab_runtime.errors import DataError

logger = logging.getLogger(__name__)

MAX_LINES = 20


@dataclass
class Findings:
    """Problems (title -> lines), what would mend them, warnings and automatic choices, in the order found."""

    problems: dict[str, list[str]] = field(default_factory=dict)
    fixes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    choices: list[str] = field(default_factory=list)

    def problem(self, title: str, lines: Iterable[str]) -> None:
        """Add lines under a title; no lines, no problem."""
        lines = list(lines)
        if lines:
            self.problems.setdefault(title, []).extend(lines)

    def fix(self, title: str, lines: Iterable[str]) -> None:
        """Add text that is shown after all problems, such as the options to use."""
        self.fixes.append("\n".join([f"{title}:", *(f"  {line}" for line in lines)]))

    def warn(self, title: str, lines: Iterable[str]) -> None:
        """Add one warning that lists all lines given; without lines add no warning."""
        lines = list(lines)
        if lines:
            self.warnings.append(format_lines(title, lines))

    def choose(self, sentence: str) -> None:
        """Note something decided on the user's behalf, with the reason."""
        self.choices.append(sentence)

    def report(self) -> str:
        """Return all problems as text, each title capped at `MAX_LINES` lines, and then what would mend them."""
        return "\n".join([*(format_lines(title, lines) for title, lines in self.problems.items()), *self.fixes])

    def raise_problems(self, where: str) -> None:
        """Raise all problems as one DataError; return if there are none."""
        if self.problems:
            raise DataError(f"The images of {where} cannot be used as they are.\n{self.report()}")

    def log(self) -> None:
        """Log choices (info) and warnings."""
        for choice in self.choices:
            logger.info("%s", choice)
        for warning in self.warnings:
            logger.warning("%s", warning)


def format_lines(title: str, lines: list[str]) -> str:
    """Return a title with its count and its lines, indented and capped.

    >>> print(format_lines("Unreadable files", ["a.png", "b.png"]))
    Unreadable files (2):
      a.png
      b.png
    """
    shown = [f"  {line}" for line in lines[:MAX_LINES]]
    if len(lines) > MAX_LINES:
        shown.append(f"  ... and {len(lines) - MAX_LINES} more")
    return "\n".join([f"{title} ({len(lines)}):", *shown])
