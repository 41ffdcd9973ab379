"""Options of tiles: checked, recorded, and what they do not go with."""

import pytest
from helpers.models import small

from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab.data.transforms.tiling import tiling_option
from defectlab.models.registry import model_class
from defectlab_runtime.errors import OptionError
from defectlab_runtime.tiling import Tiling


def test_options_are_checked_and_travel():
    tiling = tiling_option({"image_size": 96})
    assert tiling_option(tiling.to_dict()) == tiling == Tiling((96, 96))
    for wrong, words in (
        ({"size": 96}, "has no option 'size'"),
        ({"image_size": [96]}, "height, width"),
        ({"image_size": 96, "overlap": 0.95}, "overlap"),
        ({"image_size": 96, "random_tiles": 0}, "random_tiles"),
    ):
        with pytest.raises(OptionError, match=words):
            tiling_option(wrong)
    settings = Preprocessing(size=(64, 64), tiling=tiling)
    assert Preprocessing.from_dict(settings.to_dict()) == settings
    assert (settings.input_size, settings.map_size) == ((64, 64), (96, 96))
    assert settings.hash != Preprocessing(size=(64, 64)).hash
    with pytest.raises(OptionError, match="must be larger than a tile"):
        Preprocessing(size=(128, 128), tiling=tiling)
    with pytest.raises(OptionError, match="center_crop"):
        Preprocessing(size=(64, 64), crop=(32, 32), tiling=tiling)
    with pytest.raises(OptionError, match="cannot look at images tile by tile"):
        model_class("ganomaly")(image_size=64).set_input_region(None, Tiling((96, 96)))
    with pytest.raises(OptionError, match="multiples of 32"):
        small("padim").set_input_region(None, Tiling((100, 100)))
