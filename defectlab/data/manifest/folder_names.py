"""What the name of a folder says of its pictures: good, bad, masks, validation or unlabelled. No torch here."""

import re

from defectlab.data.images import nfc

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
