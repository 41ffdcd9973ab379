import hashlib

import numpy as np
import pytest

from defectlab.data.samples.procedural import KINDS, procedural_image


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_arguments_give_the_same_pixels_and_others_do_not(kind: str) -> None:
    image = procedural_image(kind, 0, size=96)
    assert image.shape == (96, 96, 3)
    assert image.dtype == np.uint8
    assert image.std() > 2
    assert np.array_equal(image, procedural_image(kind, 0, size=96))
    assert not np.array_equal(image, procedural_image(kind, 1, size=96))
    assert not np.array_equal(image, procedural_image(kind, 0, seed=43, size=96))


def test_no_kind_touches_the_global_generator() -> None:
    np.random.seed(0)  # noqa: NPY002
    before = hashlib.sha256(np.random.get_state()[1].tobytes()).hexdigest()  # noqa: NPY002
    for kind in KINDS:
        procedural_image(kind, 3, size=64)
    assert hashlib.sha256(np.random.get_state()[1].tobytes()).hexdigest() == before  # noqa: NPY002
