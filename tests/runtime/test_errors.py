"""What a notebook shows of an error."""

from defectlab import InputError
from defectlab_runtime.errors import WeightsError


def test_a_notebook_shows_an_errors_message_alone():
    assert WeightsError("No weights.")._render_traceback_() == ["WeightsError: No weights."]
    assert InputError("Two\nlines")._render_traceback_() == ["InputError: Two\nlines"]
