"""How the program is called here, and where its workbook lies."""

from pathlib import Path

import pytest

from defectlab.utils import paths
from defectlab_runtime.errors import InputError


def test_the_fix_names_the_program_as_it_is_called_here(own_project: Path, monkeypatch: pytest.MonkeyPatch):
    script = own_project / ".venv/bin/defectlab"
    script.parent.mkdir(parents=True)
    script.touch()
    monkeypatch.setattr("sys.executable", str(script.with_name("python")))
    assert paths.program() == ".venv/bin/defectlab"
    monkeypatch.setattr("sys.executable", str(own_project / "elsewhere/python"))
    monkeypatch.setenv("PATH", "")
    assert paths.program() == "python -m defectlab"


@pytest.mark.parametrize("name", ["team.xlsm", "team.ods", "team"])
def test_a_workbook_of_another_format_is_refused_by_its_name(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DEFECTLAB_WORKBOOK", name)
    with pytest.raises(InputError, match=rf"{name}: give it a name that ends in \.xlsx \(DEFECTLAB_WORKBOOK\)"):
        paths.workbook()
