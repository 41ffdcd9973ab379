"""Names that others chose are safe where they are put."""

import csv
import json
import os
import re
from pathlib import Path

import pytest

from defectlab.utils.files import read_csv, write_csv, write_json
from defectlab_runtime import names
from tests.helpers.nasty_names import NASTY


@pytest.mark.parametrize("name", NASTY, ids=ascii)
def test_a_path_can_be_made_and_stays_in_its_folder(name: str, tmp_path: Path):
    folder = tmp_path / "folder"
    for suffix in ("", ".heatmap.png", ".rerun-1234567"):
        made = folder / (names.path(name) + suffix)
        made.mkdir(parents=True)
        assert made.resolve().parent == folder
    assert not {".", " "} & {names.path(name)[-1]}
    assert names.path(names.path(name)) == names.path(name)


@pytest.mark.parametrize(
    ("name", "safe"),
    [("con", "_con"), ("LPT1.txt", "_LPT1.txt"), ("console", "console"), ("..", "unnamed"), ("", "unnamed"),
     ("../../outside", "-..-outside"), ("dots. . .", "dots"), ("a b (2).png", "a b (2).png"),
     ("\u202egnp.exe", "-gnp.exe"),
     ("nul\0byte", "nul-byte"), ("undecodable\udcff", "undecodable-"), ("Pr\u00fcfteil", "Pr\u00fcfteil")],
)  # fmt: skip
def test_paths_of_some_names(name: str, safe: str):
    assert names.path(name) == safe


def test_long_paths_are_cut_by_bytes_and_differ_by_a_hash():
    long, other = names.path("\u00fc" * 200 + ".png"), names.path("\u00fc" * 201 + ".png")
    assert len(long.encode()) <= names.NAME_BYTES
    assert long.endswith(".png")
    assert long != other


def test_paths_that_a_file_system_takes_for_the_same_differ():
    unique = names.UniquePaths()
    first = unique.of("a", "Case.png")
    made = [first, unique.of("A", "case.png"), unique.of("a", "ca?e.png"), unique.of("a", "ca*e.png")]
    assert first == Path("a/Case.png")
    assert unique.of("a", "Case.png") == first
    assert len({path.as_posix().casefold() for path in made}) == 4
    assert {path.suffix for path in made} == {".png"}


@pytest.mark.parametrize("name", NASTY, ids=ascii)
def test_a_csv_gives_the_true_name_back_and_holds_no_formula(name: str, tmp_path: Path):
    path = write_csv(tmp_path / "table.csv", ["name", "value"], [[name, -0.5]])
    assert read_csv(path) == (["name", "value"], [[name, "-0.5"]])
    with path.open(newline="", encoding="utf-8") as file:
        (_, row) = csv.reader(file)
    for part in re.split("[;\n]", row[0]):
        assert not re.match("[=+\\-@\t\r\uff1d]", part)


@pytest.mark.parametrize(
    ("name", "written"),
    [("=1+1", "'=1+1"), ("'=1+1", "''=1+1"), ("a;=1+1", "a;'=1+1"), ("\t=1", "\\u0009=1"), ("-2", "-2"),
     ("-2+3", "'-2+3"),
     ("'quoted'", "'quoted'"), ("\udcff", "\\udcff"), ("\\u001b", "\\u005cu001b"), (-0.5, -0.5), (None, None)],
)  # fmt: skip
def test_csv_cells_of_some_names(name: object, written: object):
    assert names.csv(name) == written


@pytest.mark.parametrize(
    "name",
    [*NASTY, "it's", "'=1+1", "a;'-b", "\\u00e4", "\\u005cu00e4"],
    ids=ascii,
)
def test_a_csv_of_before_is_read_as_it_stands(name: str, tmp_path: Path):
    if re.search("[\ud800-\udfff]", name):
        pytest.skip("an earlier version could not write it")
    with (tmp_path / "old.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["name", "x"], [name, "1"]])
    assert read_csv(tmp_path / "old.csv", "utf-8")[1] == [[name, "1"]]


def test_a_csv_says_which_rows_are_escaped_and_only_where_some_are(tmp_path: Path):
    path = write_csv(tmp_path / "a.csv", ["name", "x"], [["=a", 1], ["\\u00e4", 2], ["b", 3]])
    text = path.read_text(encoding="utf-8")
    assert text.splitlines() == ["name,x,names_escaped", "'=a,1,yes", "\\u005cu00e4,2,yes", "b,3,"]
    path.write_text(f"{text}'=by a person,4\n'=another,5,\n", encoding="utf-8")
    names_read = [row[0] for row in read_csv(path)[1]]
    assert names_read == ["=a", "\\u00e4", "b", "'=by a person", "'=another"]
    assert write_csv(path, ["name"], [["b"]]).read_text(encoding="utf-8").splitlines() == ["name", "b"]
    assert read_csv(write_csv(path, ["=name"], [["'=b"]])) == (["=name"], [["'=b"]])


def test_a_file_with_a_name_of_255_bytes_is_replaced(tmp_path: Path):
    path = write_csv(tmp_path / ("x" * 251 + ".csv"), ["name"], [["a"]])
    assert read_csv(path) == (["name"], [["a"]])


def test_an_undecodable_file_name_goes_through_json(tmp_path: Path):
    name = os.fsdecode(b"a\xff.png")
    write_json(tmp_path / "a.json", {"path": name})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"path": name}


@pytest.mark.parametrize("name", NASTY, ids=ascii)
def test_cells_hold_the_name_where_they_can(name: str):
    shown = names.cell(name)
    assert names.cell(shown) == shown
    assert not re.search("[\x00-\x09\x0b-\x1f\ud800-\udfff\ufffe\uffff]", shown)
    if name.isprintable():
        assert shown == name


def test_terminal_html_and_figures_show_what_is_hidden():
    assert names.terminal("\x1b[2J\n\u202e") == "\\x1b[2J\\n\\u202e"
    assert names.terminal("a\n\x1b", lines=True) == "a\n\\x1b"
    assert names.html('"<b>\x00') == "&quot;&lt;b&gt;\\x00"
    assert names.figure("$\\frac{a$\n") == "\\$\\frac{a\\$\\n"
    assert len(names.figure("x" * 300)) == names.FIGURE_CHARACTERS
    assert names.panel("two\nlines") == "two\\nlines"
