"""Where the log goes."""

import io
import logging

import pytest

from defectlab.utils.logs import show_log


def test_the_log_goes_where_standard_error_is_now(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    package = logging.getLogger("defectlab")
    monkeypatch.setattr(package, "handlers", [])
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    show_log()
    later = io.StringIO()
    monkeypatch.setattr("sys.stderr", later)
    package.info("here")
    assert later.getvalue() == "here\n"
