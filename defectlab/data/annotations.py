"""Labels of test images in a text file: a line "name label" for each image, 1 for an anomalous one. No torch here."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from defectlab.data.images import nfc
from defectlab.data.problems import Findings
from defectlab.errors import DataError

LABELS = {"0": 0, "1": 1}


def read_labels(file: Path, names: Iterable[str], where: str, findings: Findings) -> dict[str, int]:
    """Return the label of each of the names that `file` labels once; everything wrong with it becomes a problem.

    `where` is what the file is called in problems. A line that names no image is only warned of.

    Raises:
        DataError: The file cannot be read as UTF-8 text.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as UTF-8 text: {error}.") from error
    places: dict[str, list[int]] = defaultdict(list)
    labels: dict[str, int] = {}
    malformed = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name, _, label = nfc(line.strip()).rpartition(" ")
        name = name.strip()
        if not name or label not in LABELS:
            malformed.append(f"{where} line {number}: {line.strip()!r}")
            continue
        places[name].append(number)
        labels[name] = LABELS[label]
    known = {nfc(name): name for name in names}
    doubled = {name for name, numbers in places.items() if len(numbers) > 1}
    findings.problem('Annotation lines that are no "name label", label 0 (good) or 1 (anomalous)', malformed)
    lines = [f"{name}: lines {' and '.join(map(str, places[name]))} of {where}" for name in sorted(doubled)]
    findings.problem("Images annotated twice: keep one line of each", lines)
    lines = [f"{name}: no line in {where}" for key, name in known.items() if key not in labels]
    findings.problem("Images without an annotation: add a line, or remove the image", lines)
    unused = [f"{where} line {places[name][0]}: {name}" for name in labels if name not in known]
    findings.warn("Annotations of images that are not there", unused)
    return {name: labels[key] for key, name in known.items() if key in labels and key not in doubled}
