"""A table and its renderers for terminal or notebook, Markdown and HTML; the workbook has its own renderer."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from defectlab_runtime import names


@dataclass(frozen=True)
class Column:
    """A table column: its title, its number format, and its layout in a terminal and in Markdown.

    `right`: whether its cells are aligned to the right. `wrap`: whether a terminal breaks long cells into lines instead
    of cutting them off.
    """

    title: str
    form: str = ""
    right: bool = False
    wrap: bool = False


def numbers(*titles: str, form: str = "", wrap: bool = False) -> list[Column | str]:
    """Return right-aligned columns with the given titles.

    >>> numbers("images")
    [Column(title='images', form='', right=True, wrap=False)]
    """
    return [Column(title, form, right=True, wrap=wrap) for title in titles]


@dataclass(frozen=True)
class Cell:
    """A value with a CSS class of the HTML page: wrong, quiet, best, tied or name. Only HTML shows the style."""

    value: Any
    style: str


class Table:
    """Rows of values under columns; a column may be given by its title alone."""

    def __init__(self, columns: Sequence[Column | str], rows: Sequence[Sequence[Any]]) -> None:
        self.columns = [Column(column) if isinstance(column, str) else column for column in columns]
        self.rows = rows

    def texts(self, missing: str = "-") -> list[list[str]]:
        """Return the text of each cell, row by row; None is shown as `missing`.

        >>> Table(["run", *numbers("AUROC", "F1", form=".3f")], [["a", 0.98765, None]]).texts()
        [['a', '0.988', '-']]
        """
        return [
            [cell_text(value, column, missing) for value, column in zip(row, self.columns, strict=True)]
            for row in self.rows
        ]


def cell_text(value: Any, column: Column, missing: str = "-") -> str:
    """Format a value as text: numbers in the column's format, by default floats with four decimals."""
    if value is None:
        return missing
    if is_number(value) and (column.form or isinstance(value, float)):
        return format(value, column.form or ".4f")
    return str(value)


def is_number(value: Any) -> bool:
    """Return whether a value is an int or a float; booleans do not count as numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def to_markdown(table: Table, missing: str = "-") -> str:
    """Render a table as Markdown text.

    >>> print(to_markdown(Table(["split", *numbers("good")], [["train", 3]])))
    | split | good |
    | --- | ---: |
    | train | 3 |
    """
    titles = [names.markdown(column.title) for column in table.columns]
    sides = ["---:" if column.right else "---" for column in table.columns]
    rows = ([names.markdown(text) for text in texts] for texts in table.texts(missing))
    return "\n".join(f"| {' | '.join(line)} |" for line in (titles, sides, *rows))


def to_html(table: Table, missing: str = "n/a") -> str:
    """Render a table as HTML that scrolls sideways if wide; text is escaped, None is shown as `missing`."""
    head = "".join(f"<th>{names.html(column.title)}</th>" for column in table.columns)
    rows = ("".join(map(_html_cell, row, table.columns, repeat(missing))) for row in table.rows)
    body = "".join(f"<tr>{cells}</tr>" for cells in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _html_cell(value: Any, column: Column, missing: str) -> str:
    value, style = (value.value, value.style) if isinstance(value, Cell) else (value, "")
    if value is None:
        return f'<td class="quiet">{names.html(missing)}</td>'
    classes = " ".join(filter(None, ("number" if is_number(value) else "", style)))
    attribute = f' class="{classes}"' if classes else ""
    return f"<td{attribute}>{names.html(cell_text(value, column))}</td>"


def print_table(
    table: Table,
    *,
    title: str | None = None,
    missing: str = "-",
    bold: Collection[int] = (),
    width: int = 0,
    fit: bool = False,
) -> None:
    """Print a table to the terminal or the notebook.

    Args:
        table: What to print.
        title: Above the table.
        missing: Shown for None.
        bold: Positions of the rows in bold.
        width: Characters to take at least, since without a terminal only 80 are assumed.
        fit: Whether to take as many characters as the table needs.
    """
    from rich import table as rich_table
    from rich.console import Console
    from rich.measure import Measurement
    from rich.text import Text

    def plain(text: str) -> Text:  # what stands in brackets is a name's, not markup
        return Text(names.terminal(text))

    shown = rich_table.Table(title=None if title is None else Text(names.terminal(title), "table.title"))
    for column in table.columns:
        shown.add_column(plain(column.title), justify="right" if column.right else "left", no_wrap=not column.wrap)
    for place, texts in enumerate(table.texts(missing)):
        shown.add_row(*map(plain, texts), style="bold" if place in bold else None)
    console = Console(width=max(Console().width, width))
    if fit:
        needed = Measurement.get(console, console.options.update(width=1000), shown).maximum
        console.width = max(console.width, needed)
    console.print(shown)


def print_line(text: str) -> None:
    """Print text to the terminal or the notebook without wrapping long lines."""
    from rich.console import Console

    Console().print(names.terminal(text, lines=True), soft_wrap=True, markup=False, emoji=False)


def interval_text(low: float | None, high: float | None, digits: int = 3) -> str | None:
    """Format an interval as text 'low to high', or return None if either end is None.

    >>> interval_text(0.5, 0.75)
    '0.500 to 0.750'
    """
    return None if low is None or high is None else f"{low:.{digits}f} to {high:.{digits}f}"
