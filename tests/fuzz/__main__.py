"""Run targets long: `python -m tests.fuzz --inputs 50000`, or some by name with `--seed` to repeat a finding."""

import argparse
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.target import TARGETS, load_target
from tests.fuzz.worker import Worker

SECONDS = 5.0
PEAK_BYTES = 2 << 30


def main() -> int:
    """Attack, print a table, and return 1 where a fault was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; all without one")
    parser.add_argument("--inputs", type=int, default=50_000, help="inputs in all, divided by each target's share")
    parser.add_argument("--seed", type=int, default=0, help="first seed; every input has its own, counted from here")
    parser.add_argument("--jobs", type=int, default=2, help="targets attacked at once, each in a process of its own")
    parser.add_argument("--out", type=Path, default=Path("fuzz_findings"), help="folder for tracebacks, one file each")
    arguments = parser.parse_args()
    names = arguments.targets or list(TARGETS)
    whole = sum(TARGETS[name][1] for name in names)
    print("target          inputs  accepted  refused  faults  hangs  died  peak MB      s")
    found = 0
    for name in names:  # imported before the threads, which would wait for each other's imports
        load_target(name)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        shares = [round(arguments.inputs * TARGETS[name][1] / whole) for name in names]
        results = pool.map(_attack, names, shares, [arguments] * len(names))
        for name, (outcomes, peak, seconds) in zip(names, results, strict=True):
            found += _report(name, outcomes, peak, seconds)
    return int(found > 0)


def _report(name: str, outcomes: Counter[str], peak: int, seconds: float) -> int:
    """Print the row of a target and return how many faults it has."""
    print(
        f"{name:14}{outcomes.total():>8}{outcomes['accepted']:>10}{outcomes['refused']:>9}{outcomes['fault']:>8}"
        f"{outcomes['hang']:>7}{outcomes['died']:>6}{peak >> 20:>9}{seconds:>7.0f}",
        flush=True,
    )
    return outcomes["fault"] + outcomes["hang"] + outcomes["died"] + (peak > PEAK_BYTES)


def _attack(name: str, inputs: int, arguments: argparse.Namespace) -> tuple[Counter[str], int, float]:
    """Return the outcomes of `inputs` seeds, the peak memory of a process in bytes and the seconds of it all."""
    outcomes: Counter[str] = Counter()
    peak, start = 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="defectlab-fuzz-") as good:
        load_target(name).prepare(Path(good))
        worker = Worker(name, Path(good))
        for seed in range(arguments.seed, arguments.seed + inputs):
            outcome, text = worker.attack(seed, SECONDS)
            outcomes[outcome] += 1
            peak = max(peak, now := worker.peak_bytes())
            if now > PEAK_BYTES:
                text += f"\npeak of {now} bytes"
                worker.close()
            if text:
                arguments.out.mkdir(parents=True, exist_ok=True)
                (arguments.out / f"{name}-{seed}.txt").write_text(
                    f"{outcome}\n{text}\n", encoding="utf-8", errors="backslashreplace"
                )
        worker.close()
    return outcomes, peak, time.monotonic() - start


if __name__ == "__main__":
    raise SystemExit(main())
