"""What every benchmark returns, and the table made of it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One comparison with plain anomalib in the same process: seconds, peak memory, how equal the results are.

    Seconds are medians, both sides in turn. Where `extrapolated`, plain's first picks or batches were timed and
    multiplied. Memory is MiB above what both start from, None where it was not measured. `at_least` is the ratio that
    is promised, None where none is.
    """

    what: str
    plain_s: float
    ours_s: float
    plain_mib: float | None
    ours_mib: float | None
    equal: str
    extrapolated: bool = False
    note: str = ""
    at_least: float | None = None

    @property
    def ratio(self) -> float:
        """How many times faster ours is."""
        return self.plain_s / self.ours_s


COLUMNS = ("what", "plain", "ours", "ratio", "promised", "memory, plain / ours", "equality", "note")


def table(rows: Sequence[Row]) -> str:
    """Render rows as a Markdown table."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|--:|--:|--:|--:|--:|---|---|"]
    for row in rows:
        plain = f"{_seconds(row.plain_s)}{' (extrapolated)' if row.extrapolated else ''}"
        promised = "" if row.at_least is None else f"{row.at_least:g}x"
        memory = f"{_mib(row.plain_mib)} / {_mib(row.ours_mib)}"
        cells = (row.what, plain, _seconds(row.ours_s), f"{row.ratio:.3g}x", promised, memory, row.equal, row.note)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _seconds(value: float) -> str:
    """Three digits, in the unit that suits.

    >>> _seconds(0.01234), _seconds(12.345), _seconds(4800)
    ('12.3 ms', '12.3 s', '80 min')
    """
    if value < 1:
        return f"{1000 * value:.3g} ms"
    return f"{value:.3g} s" if value < 600 else f"{value / 60:.3g} min"


def _mib(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f} MiB"
