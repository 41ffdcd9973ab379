"""One table value, rendered for terminal, Markdown and HTML."""

import pytest

from defectlab.utils.table import Cell, Column, Table, interval_text, numbers, print_table, to_html, to_markdown

COLUMNS = ["run", *numbers("AUROC", form=".3f"), *numbers("images", "seconds")]
TABLE = Table(COLUMNS, [["a <b>", 0.98765, 12, 1.5], ["c", None, True, "none"]])


def test_numbers_have_the_columns_format_and_others_four_digits():
    assert TABLE.texts() == [["a <b>", "0.988", "12", "1.5000"], ["c", "-", "True", "none"]]


def test_markdown_aligns_numbers_to_the_right():
    assert to_markdown(TABLE, missing="n/a").splitlines() == [
        "| run | AUROC | images | seconds |",
        "| --- | ---: | ---: | ---: |",
        "| a &lt;b&gt; | 0.988 | 12 | 1.5000 |",
        "| c | n/a | True | none |",
    ]


def test_html_escapes_text_and_marks_numbers_and_styles():
    page = to_html(
        Table(["kind", "share"], [["a <b>", Cell(0.5, "wrong")], [Cell("x", "name"), None], ["y", Cell("z", "")]])
    )
    assert "<td>a &lt;b&gt;</td>" in page
    assert '<td class="number wrong">0.5000</td>' in page
    assert '<td class="name">x</td><td class="quiet">n/a</td>' in page
    assert "<td>z</td>" in page
    assert to_html(Table(["share"], [[None]]), missing="").count('<td class="quiet"></td>') == 1


@pytest.mark.parametrize(("fit", "is_cut"), [(False, True), (True, False)])
def test_a_terminal_cuts_long_cells_off_unless_the_table_may_be_as_wide_as_it_needs(
    fit: bool, is_cut: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "60")
    print_table(Table(["name", Column("words", wrap=True)], [["x" * 90, "one two"]]), fit=fit)
    assert ("x" * 90 not in capsys.readouterr().out) == is_cut


def test_an_interval_without_an_end_is_none():
    assert interval_text(0.25, None) is None
    assert interval_text(0.25, 0.75, digits=1) == "0.2 to 0.8"
