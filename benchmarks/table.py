"""One line of the benchmark table: the record that `make bench` prints and keeps."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """Plain anomalib and ours on the same input, measured in one process.

    Seconds are medians; memory is the peak in MiB above what the process held before, None where it was not measured.
    `equal` says how far apart the two results are, in words with figures. `extrapolated`: plain's seconds are those of
    a part of its work, multiplied up; `note` says which part.
    """

    what: str
    plain_s: float
    ours_s: float
    plain_mib: float | None
    ours_mib: float | None
    equal: str
    extrapolated: bool
    note: str

    @property
    def ratio(self) -> float:
        """How many times faster ours is."""
        return self.plain_s / self.ours_s
