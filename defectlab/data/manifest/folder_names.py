"""What the name of a folder says of its pictures: good, bad, masks, validation or unlabelled. No torch here."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from defectlab_runtime.image_files import nfc

GOOD = ("good", "normal", "ok", "pass", "良", "годен")
BAD = (
    *("bad", "abnormal", "defect", "defects", "defective", "anomaly", "anomalies", "nok", "ng", "fail"),
    *("不良", "брак"),
)
MASKS = ("ground_truth", "masks", "mask", "gt")
TRAIN = ("train", "training")
TEST = ("test", "testing")
VALIDATION = ("val", "validation")
UNKNOWN = "unknown"
IMAGE_FOLDERS = ("image", "images", "img", "imgs", "picture", "pictures", "photo", "photos")

# Beginnings and whole words that say "good" in the languages of plants, and are not taken for it without being asked.
_GOOD_BEGINNINGS = (
    "good",
    "normal",
    "хорош",
    "годен",
    "годн",
    "норм",
    "исправн",
    "良",
    "正常",
    "合格",
    "无缺陷",
    "양품",
    "정상",
)
_GOOD_WORDS = (
    *("ok", "okay", "pass", "passed", "io", "gut", "gute", "guten", "gutteile", "bueno", "buenos", "buena", "buenas"),
    *("bon", "bons", "bonne", "bonnes", "buono", "buoni", "bom", "bons", "goed", "dobry", "dobre", "perfect"),
)
_WITHOUT = re.compile(r"\b(no|non|without|zero|ohne|sans|sin|без)\b.*\b(defects?|anomal\w*|faults?|fehler|дефект\w*)\b")
_FREE = re.compile(r"\b(defect|defects|fault|error|anomaly) free\b|\bfree$")


def plain(name: str) -> str:
    """Return a folder's name for comparison: Unicode form NFC, without case and without spaces around it.

    >>> plain(" OK ")
    'ok'
    """
    return nfc(name).strip().casefold()


def kind_names(folders: Sequence[str]) -> dict[str, str]:
    """Return the kind of defect that each folder given by name holds: the name of the folder itself.

    Where several folders have one name that says nothing, such as `Imgs`, `test` or a name of bad images (`BAD`), it is
    the last part of their paths that says something.

    >>> kind_names(["MT_Blowhole/Imgs", "MT_Crack/Imgs", "lot1/hole", "lot2/hole"])
    {'MT_Blowhole/Imgs': 'MT_Blowhole', 'MT_Crack/Imgs': 'MT_Crack', 'lot1/hole': 'hole', 'lot2/hole': 'hole'}
    >>> kind_names(["hole/bad", "crack/bad", "scratch/test"])
    {'hole/bad': 'hole', 'crack/bad': 'crack', 'scratch/test': 'test'}
    """
    paths = {folder: PurePosixPath(folder) for folder in folders}
    counts = Counter(plain(path.name) for path in paths.values())
    silent = {*IMAGE_FOLDERS, *TEST, *VALIDATION, *(name for name in BAD if counts[name] > 1)}

    def kind(path: PurePosixPath) -> str:
        parts = path.parts if counts[plain(path.name)] > 1 else ()
        return next((part for part in reversed(parts) if part != "/" and plain(part) not in silent), path.name)

    return {folder: kind(path) for folder, path in paths.items()}


def sounds_good(name: str) -> bool:
    """Return whether a name seems to say that the pictures are good, in one of several languages.

    >>> [name for name in ("normals", "gut", "OK_2", "not_good", "abnormal", "crack") if sounds_good(name)]
    ['normals', 'gut', 'OK_2']
    """
    words = [word for word in re.split(r"[\W\d_]+", plain(name).replace("i.o", "io")) if word]
    if not words:
        return False
    spaced = " ".join(words)
    if _WITHOUT.search(spaced) or _FREE.search(spaced):
        return True
    return words[0].startswith(_GOOD_BEGINNINGS) or words[0] in _GOOD_WORDS
