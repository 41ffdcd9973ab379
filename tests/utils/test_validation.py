from dataclasses import dataclass

import pytest

from defectlab.utils.validation import section_options
from defectlab_runtime.errors import OptionError


@dataclass
class Options:
    trials: int = 20
    seed: int = 0


def test_options_of_a_section_are_those_given_and_not_null():
    assert section_options("search", {"trials": 3, "seed": None}, Options, "{trials: 50}") == {"trials": 3}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (["trials"], r"search must be a mapping such as `\{trials: 50\}`, got \['trials'\]"),
        ({"trails": 3}, "Section 'search' has no option 'trails'. Did you mean 'trials'"),
    ],
)
def test_a_section_that_cannot_be_read_is_refused(data: object, message: str):
    with pytest.raises(OptionError, match=message):
        section_options("search", data, Options, "{trials: 50}")
