from collections.abc import Iterator

import pytest

from defectlab.data import auxiliary_images


@pytest.fixture(autouse=True, scope="module")
def few_generated_images() -> Iterator[None]:
    """A set as small as it can be for tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auxiliary_images, "IMAGES_PER_KIND", 1)
        patch.setattr(auxiliary_images, "IMAGE_SIZE", 64)
        yield
