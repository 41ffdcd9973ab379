"""The runtime from an empty environment: megabytes installed, seconds from start to first score, memory, ms an image.

    python -m benchmarks.bench_runtime model.onnx part.png              # makes an environment in a temporary folder
    python -m benchmarks.bench_runtime model.onnx part.png --env DIR    # in a folder that stays, or is used again

The wheel is built from `runtime/` and installed by pip from the configured index. Seconds are medians of processes of
their own, from the import to the first score, by the clock and of the processor; the first process, which fills the
system's cache of files, is not counted. On a machine in use only the processor's seconds say something.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUNS = 5

FIRST_SCORE = """
import json, resource, sys, time
started, used = time.perf_counter(), time.process_time()
from defectlab_runtime import Detector
detector = Detector.load(sys.argv[1], threads=int(sys.argv[3]))
detector.predict(sys.argv[2])
first, first_used = time.perf_counter() - started, time.process_time() - used
laps = []
for _ in range(20):
    lap = time.process_time()
    detector.predict(sys.argv[2])
    laps.append(time.process_time() - lap)
usage = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"first": first, "used": first_used, "image": sorted(laps)[10], "peak": usage.ru_maxrss / 1024}))
"""


def install(folder: Path) -> Path:
    """Build the wheel, install it alone, and return the environment's Python."""
    python = folder / "env" / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
        pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder / "wheels", ROOT / "runtime"], check=True)
        (wheel,) = (folder / "wheels").glob("*.whl")
        subprocess.run([*pip, "install", wheel], check=True)
        subprocess.run([*pip, "uninstall", "--yes", "pip", "setuptools"], check=True)
    return python


def megabytes(folder: Path) -> float:
    """Return the size of all files below a folder, links left out."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink()) / 1e6


def measure(python: Path, model: Path, image: Path, threads: int) -> dict[str, float]:
    """Return medians over processes: seconds to the first score, processor seconds an image, peak memory in MiB."""
    command = [str(python), "-c", FIRST_SCORE, str(model.absolute()), str(image.absolute()), str(threads)]
    found = []
    for _ in range(RUNS + 1):
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=python.parent)
        found.append(json.loads(done.stdout))
    return {key: statistics.median(one[key] for one in found[1:]) for key in found[0]}


def main() -> None:
    """Install, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--env", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        python = install(given.env or Path(temporary))
        size = megabytes(python.parents[1])
        found = measure(python, given.model, given.image, given.threads)
    print(f"installed: {size:.0f} MB without pip")
    print(f"import to first score: {found['first']:.2f} s by the clock, {found['used']:.2f} s of the processor")
    print(f"then {found['image'] * 1e3:.1f} ms of the processor an image")
    print(f"peak memory: {found['peak']:.0f} MiB; {given.threads} threads")


if __name__ == "__main__":
    main()
