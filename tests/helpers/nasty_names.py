"""Names that break a program which puts them somewhere without care, a generator of others, and checks of pages."""

import random
import re
from html.parser import HTMLParser

NASTY = (
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1+1",
    "\r=1+1",
    "a;=1+1",
    "'=1+1",
    "#DIV/0!",
    "<script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "<img src=x onerror=alert(1)>",
    "a | b `c` **d** [e](javascript:f)",
    "[/bold] [red]x[/red] :smile:",
    "\x1b[2J\x1b]0;owned\x07",
    "$\\frac{a$",
    "$x$ and $y",
    "two\nlines",
    "carriage\rreturn",
    "nul\x00byte",
    "\ufffe\uffff",
    "undecodable\udcff",
    "half\ud83d pair",
    "\u202egnp.exe",
    "\u200f\u2066mark",
    "x" * 300,
    "\u00fc" * 200,
    "con",
    "LPT1.txt",
    'a<b>:"c"\\d|e?f*g',
    "dots. . .",
    " blanks ",
    "Case",
    "case",
    "..",
    "../../outside",
    "/absolute",
    "",
    "\\u001b literal \\n",
    "{'a': 1}",
    "_hidden_",
)
CHARACTERS = "=+-@'\";,|`<>&$\\_*[]{}()#%:/?.abAB\u00fc\uff1d"
CHARACTERS += " \t\n\r\x00\x07\x1b\x7f\x9b\u200f\u202e\u2028\ufeff\ufffe\udcff"
# What commands a terminal or hides text; line breaks are looked for where they matter.
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Page(HTMLParser):
    """The tags and attributes of an HTML page, or of a part of one, in which every tag that opens must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self._open
        assert self._open.pop() == tag


def draw_name(random: random.Random) -> str:
    """Return one of `NASTY`, two of them as one, or characters of the kinds that they are made of."""
    kind = random.randrange(4)
    if kind == 0:
        return random.choice(NASTY)
    if kind == 1:
        return random.choice(NASTY) + random.choice(NASTY)
    length = random.choice((1, 2, 4, 8, 16, 64, 400))
    return "".join(random.choice(CHARACTERS) for _ in range(length))
