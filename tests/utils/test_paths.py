"""How the program is called here."""

from pathlib import Path

import pytest

from defectlab.utils import paths


def test_the_fix_names_the_program_as_it_is_called_here(own_project: Path, monkeypatch: pytest.MonkeyPatch):
    script = own_project / ".venv/bin/defectlab"
    script.parent.mkdir(parents=True)
    script.touch()
    monkeypatch.setattr("sys.executable", str(script.with_name("python")))
    assert paths.program() == ".venv/bin/defectlab"
    monkeypatch.setattr("sys.executable", str(own_project / "elsewhere/python"))
    monkeypatch.setenv("PATH", "")
    assert paths.program() == "python -m defectlab"
