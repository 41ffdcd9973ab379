"""Names that others chose (files, folders, datasets, kinds of defect, runs, errors), made safe for where they are put.

A name is kept as it is in memory and in records (run.json). On its way out it passes the function of its destination:
`path`, `cell` (workbook), `csv`, `html`, `markdown`, `figure`, `panel`, `terminal` or `tracker`. Only `csv` can be
undone, by `from_csv`, since scores.csv and the verdicts of a review are read again; the others are for people's eyes.
"""

import hashlib
import html as html_module
import re
import unicodedata
from pathlib import Path
from typing import Any

# C0 and C1 control characters, line separators, direction marks and overrides, lone surrogates (the bytes of a file
# name that is not UTF-8), and what Unicode says is no character. XML, terminals and file systems choke on one or other.
_HIDDEN = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
_HIDDEN += "\ufeff\ufff9-\ufffb\ufdd0-\ufdef\ufffe\uffff"
_NOT_PRINTABLE = re.compile(f"[{_HIDDEN}\ud800-\udfff]")
_NOT_IN_PATHS = re.compile(f'[{_HIDDEN}\ud800-\udfff/\\\\:*?"<>|]')
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\.|$)", re.IGNORECASE)  # Windows
NAME_BYTES = 200  # of the 255 of most file systems: room for `.heatmap.png`, `.rerun-PID`, `.PID.part`
MAX_SUFFIX = 16  # bytes of an ending that a shortened file name keeps
CELL_CHARACTERS = 32_767  # Excel's limit
FIGURE_CHARACTERS = 120
PANEL_CHARACTERS = 400
TRACKER_CHARACTERS = 128  # what Weights & Biases shows of a name; MLflow's databases take 250

# A spreadsheet computes a cell that begins with one of these, the full-width ones in East Asian versions.
_SIGNS = "=+\\-@\uff1d\uff0b\uff0d\uff20"
# Where a cell may begin: at the start and, where `;` separates cells or lines are split, inside of it.
_FORMULA = re.compile(f"(^|[;\n])(?=[ ']*[{_SIGNS}])")
_QUOTED_FORMULA = re.compile(f"(^|[;\n])'(?=[ ']*[{_SIGNS}])")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)  # harmless, whatever it begins with
_CSV_ESCAPED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]|\\\\(?=u[0-9a-f]{4})")
_CSV_ESCAPE = re.compile(r"\\u([0-9a-f]{4})")
_MARKDOWN = re.compile(r"([\\|`*\[\]$~#!]|(?<![^\W_])_|_(?![^\W_]))")


def path(text: str, *, empty: str = "unnamed", most: int = NAME_BYTES) -> str:
    """Return one component of a path that Linux, macOS and Windows can all make, of at most `most` bytes.

    Separators, control characters, direction marks, undecodable bytes and what Windows forbids become "-"; dots and
    blanks at the ends are cut off, so that `..` cannot lead out of a folder. A long name keeps its ending and gets a
    hash. Different names can become the same: see `UniquePaths`.

    >>> path("../a:b.png"), path("con.png"), path("..", empty="run"), len(path("x" * 300 + ".png"))
    ('-a-b.png', '_con.png', 'run', 200)
    """
    safe = _NOT_IN_PATHS.sub("-", text).strip(". ") or empty
    if _RESERVED.match(safe):
        safe = f"_{safe}"
    if len(safe.encode()) <= most:
        return safe
    stem, dot, suffix = safe.rpartition(".")
    ending = f".{suffix}" if dot and stem and len(suffix.encode()) < MAX_SUFFIX else ""
    ending = f"-{short_hash(text)}{ending}"
    return cut(safe, most - len(ending.encode())).rstrip(". ") + ending


def cut(text: str, most: int) -> str:
    """Return the beginning of a text, whole characters of at most `most` bytes in UTF-8."""
    return text.encode()[:most].decode(errors="ignore")


def short_hash(text: str) -> str:
    """Return eight hex digits of a name, which may have lone surrogates."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


class UniquePaths:
    """Safe relative paths, one for each true path, that differ on a file system without upper and lower case too.

    The first true path of several that become alike has the plain name, the others a hash before their ending.
    """

    def __init__(self) -> None:
        self._taken: dict[str, tuple[str, ...]] = {}

    def of(self, *parts: str) -> Path:
        """Return the path of these components, the last being the file's name."""
        found = Path(*(path(part) for part in parts))
        key = alike(found.as_posix())
        if self._taken.setdefault(key, parts) != parts:
            ending = f"-{short_hash('/'.join(parts))}{found.suffix}"
            found = found.with_name(cut(found.stem, NAME_BYTES - len(ending.encode())) + ending)
            self._taken.setdefault(alike(found.as_posix()), parts)
        return found


def alike(text: str) -> str:
    r"""Return what is equal for names that some file system takes for the same: other case, other Unicode form.

    >>> alike("A\u0308"), alike("\xe4")
    ('\xe4', '\xe4')
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def printable(text: str, keep: str = "") -> str:
    r"""Return text with a visible escape for each character that has no shape of its own, but those in `keep`.

    >>> print(printable("a\x1b[31m\n\u202e\udcff"))
    a\x1b[31m\n\u202e\udcff
    """
    return _NOT_PRINTABLE.sub(
        lambda match: match[0] if match[0] in keep else match[0].encode("unicode_escape").decode(), text
    )


def shorten(text: str, most: int) -> str:
    """Return text of at most `most` characters: a long one loses its middle, which a hash of six digits stands for.

    >>> shorten("a" * 50 + "b", 20)
    'aaaaaa…327f77…aaaaab'
    """
    if len(text) <= most:
        return text
    side = (most - 8) // 2
    return f"{text[:side]}…{short_hash(text)[:6]}…{text[len(text) - side :]}"


def cell(text: str) -> str:
    """Return text that a workbook can hold: printable but for line breaks, at most 32,767 characters.

    Whether it is taken for a formula is the cell's type, not its text: `results.workbook.cells.write_value` sets it.
    """
    return shorten(printable(text, keep="\n"), CELL_CHARACTERS)


def csv(value: Any) -> Any:
    r"""Return a value as it stands in a CSV, where `from_csv` finds the true name again; other than text is unchanged.

    Control characters but line breaks, and undecodable bytes, become `\u001b`; an apostrophe stands before what a
    spreadsheet would take for a formula, at the start or behind a `;` or a line break.

    >>> csv("=1+1"), csv("a;-b"), csv(-0.5), csv("plain-name")
    ("'=1+1", "a;'-b", -0.5, 'plain-name')
    """
    if not isinstance(value, str) or _is_plain(value) or _NUMBER.fullmatch(value):
        return value
    escaped = _CSV_ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", value)
    return _FORMULA.sub(r"\1'", escaped)


def _is_plain(text: str) -> bool:
    """Return whether a text is one of the usual, which need no look at every character: a path, a word."""
    plain = text.isascii() and text.isprintable() and text[:1] not in "=+-@ '"
    return plain and ";" not in text and "\\" not in text


def from_csv(text: str) -> str:
    """Return the true text of a cell that `csv` wrote.

    >>> from_csv(csv("'=1+1"))
    "'=1+1"
    """
    if text.startswith("'") or ";'" in text or "\n'" in text:
        text = _QUOTED_FORMULA.sub(r"\1", text)
    return _CSV_ESCAPE.sub(lambda match: chr(int(match[1], 16)), text) if "\\u" in text else text


def html(text: object) -> str:
    """Return text for an HTML element or a quoted attribute.

    >>> html("<script>")
    '&lt;script&gt;'
    """
    return html_module.escape(printable(str(text)))


def markdown(text: str) -> str:
    r"""Return text for a cell of a Markdown table: no markup, no HTML, one line.

    >>> print(markdown("a|b `c` <d> resnet18_x _e_"))
    a\|b \`c\` &lt;d&gt; resnet18_x \_e\_
    """
    return html_module.escape(_MARKDOWN.sub(r"\\\1", printable(text)), quote=False)


def figure(text: str, most: int = FIGURE_CHARACTERS) -> str:
    r"""Return text for matplotlib: one line, not too long, and no formula between dollars.

    >>> print(figure("$x$"))
    \$x\$
    """
    return shorten(printable(text), most).replace("$", "\\$")


def panel(text: str) -> str:
    """Return text that Pillow can draw in one line; a panel shortens it to its own width."""
    return shorten(printable(text), PANEL_CHARACTERS)


def terminal(text: str, *, lines: bool = False) -> str:
    r"""Return text for a terminal, where no character commands it; with `lines` line breaks and tabs stay.

    >>> print(terminal("\x1b[2J"))
    \x1b[2J
    """
    return printable(text, keep="\n\t" if lines else "")


def tracker(text: str) -> str:
    r"""Return a name for a tracker's service: one line that every database takes, neither empty nor too long.

    >>> print(tracker("two\nlines"), tracker(" "))
    two\nlines unnamed
    """
    return shorten(printable(text).strip(), TRACKER_CHARACTERS) or "unnamed"
