"""Figures of one image."""

from pathlib import Path

import numpy as np
import pytest
from helpers.models import fitted

from defectlab import Detector, InputError, nearest_good_patches
from defectlab.inference.figures import image_figure, patches_figure, prediction_panel, score_figure


def test_figures_of_one_image(parts: Path):
    _, run = fitted("patchcore", parts)
    detector = Detector.load(run.folder)
    path = Path(run.scores("test")[-1].image_path)
    (found,) = detector.predict(path)
    nearest = nearest_good_patches(detector, path, count=3)
    pictures = [
        score_figure(run, found),
        image_figure(detector, found),
        patches_figure(path, nearest),
        prediction_panel(detector, [found]),
    ]
    for picture in pictures:
        assert min(picture.size) > 150
        assert picture.getextrema() != ((255, 255),) * 3, "something is drawn"
    (array,) = detector.predict(np.zeros((64, 64, 3), dtype=np.uint8))
    with pytest.raises(InputError, match="predict a file instead of an array"):
        image_figure(detector, array)
