"""Reconstructions of images, and images generated from noise, by variational autoencoders: arrays and pictures."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from defectlab.inference.detector import Detector
from defectlab.models.vae.torch_model import VaeModel
from defectlab.visualization.canvas import BAD, new_figure, to_image
from defectlab.visualization.run_panel import VERDICTS
from defectlab_runtime import names
from defectlab_runtime.decision import decision
from defectlab_runtime.errors import InputError
from defectlab_runtime.image_sources import Source, read_images

COLUMNS = 8


@dataclass(frozen=True)
class Reconstruction:
    """One preprocessed image and its reconstruction, (h, w, 3) uint8 each, with the model's score and decision.

    `score` is the image's loss; `label`: 1 anomalous, 0 good, -1 where the run has no image threshold or the score is
    NaN.
    """

    image_path: str | None
    image: np.ndarray
    rebuilt: np.ndarray
    score: float
    label: int


def reconstruct(detector: Detector, source: Source) -> list[Reconstruction]:
    """Reconstruct a file, a folder, a glob, an array or a list of these (see `Detector.predict`), in order.

    Images are decoded from the mean of the latent posterior, so the result is deterministic.

    Raises:
        InputError: The model rebuilds no images.
        DataError: No images, or one that cannot be read.
    """
    model, found = _model(detector), []
    for path, image in read_images(source, bit_depth=detector.bit_depth, find=detector.find_images):
        seen = detector.model_input([image])  # (1, 3, h, w)
        score = float(model(seen).pred_score[0])
        label = decision(score, detector.image_threshold)
        found.append(Reconstruction(path, _pixels(seen)[0], _pixels(model.reconstruct(seen))[0], score, label))
    return found


def generate(detector: Detector, count: int = 16, seed: int = 42) -> np.ndarray:
    """Return `count` images (count, h, w, 3) uint8 that the decoder generates from standard normal noise.

    Raises:
        InputError: The model rebuilds no images, or `count` is no positive number.
    """
    if count < 1:
        raise InputError(f"generate: count must be at least 1, got {count}.")
    return _pixels(_model(detector).generate(count, seed))


def reconstruction_figure(detector: Detector, source: Source, title: str = "") -> Image.Image:
    """Return a figure of images above their reconstructions, with scores; anomalous decisions are titled in red.

    Raises:
        InputError: The model rebuilds no images.
    """
    found = reconstruct(detector, source)
    figure, axes = new_figure((1.9 * len(found), 3.2), columns=len(found))
    for axis, one in zip(axes, found, strict=True):
        gap = np.full((2, *one.image.shape[1:]), 255, np.uint8)
        axis.imshow(np.concatenate([one.image, gap, one.rebuilt]))
        axis.set_title(f"{one.score:.1f}\n{VERDICTS[one.label]}", fontsize=9, color=BAD if one.label == 1 else "black")
        axis.set_axis_off()
    figure.suptitle(
        names.figure(f"{title}: above the image, below its reconstruction") if title else "image, reconstruction"
    )
    return to_image(figure)


def generated_figure(detector: Detector, count: int = 16, seed: int = 42) -> Image.Image:
    """Return a picture of images generated from noise, `COLUMNS` in a row.

    Raises:
        InputError: The model rebuilds no images.
    """
    images = generate(detector, count, seed)
    rows = [_row(images[start : start + COLUMNS]) for start in range(0, len(images), COLUMNS)]
    picture = Image.fromarray(np.concatenate(rows))
    return picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST)


def _row(images: np.ndarray) -> np.ndarray:
    height, width = images[0].shape[:2]
    row = np.full((height + 2, COLUMNS * (width + 2), 3), 255, np.uint8)
    for place, image in enumerate(images):
        row[:height, place * (width + 2) : place * (width + 2) + width] = image
    return row


def _pixels(images: torch.Tensor) -> np.ndarray:
    """Return images (B, 3, h, w) in [0, 1] as (B, h, w, 3) uint8."""
    pixels: np.ndarray = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return pixels


def _model(detector: Detector) -> VaeModel:
    model = detector.model.model
    if not isinstance(model, VaeModel):
        raise InputError(
            f"{detector.model.name} rebuilds no images; LinearVae, SmallConvVae and BigConvVae do (FeatCae rebuilds "
            "features, which cannot be shown)."
        )
    return model
