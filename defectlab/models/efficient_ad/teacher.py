"""EfficientAD's teachers: the networks, the location of their weights, and loading."""

import logging
from pathlib import Path
from typing import Any

import torch
from anomalib.models.image.efficient_ad.torch_model import (
    MediumPatchDescriptionNetwork,
    SmallPatchDescriptionNetwork,
)
from torch import nn

from defectlab.backbones.backbone import tensors_sha256
from defectlab.backbones.loading import read_verified_weights
from defectlab.backbones.registry import DEFAULT
from defectlab.backbones.weights import find_weights
from defectlab.backbones.weights_manifest import file_sha256
from defectlab.utils import paths
from defectlab.utils.seeds import seeded
from defectlab_runtime.errors import OptionError, WeightsError, unknown_name

logger = logging.getLogger(__name__)

RANDOM = "random"
MIN_DEVIATION = 0.25  # of a channel, as a share of its deviation on general images
SIZES = ("tiny", "small", "medium")
FETCH = (
    "https://github.com/open-edge-platform/anomalib/releases/download/efficientad_pretrained_weights/"
    "efficientad_pretrained_weights.zip"
)


class TinyPatchDescriptionNetwork(SmallPatchDescriptionNetwork):
    """The small network with a quarter of its inner channels: for trials on a CPU. No one publishes weights for it."""

    def __init__(self, out_channels: int, padding: bool = False) -> None:
        nn.Module.__init__(self)
        pad = 1 if padding else 0
        self.conv1 = nn.Conv2d(3, 32, kernel_size=4, padding=3 * pad)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=4, padding=3 * pad)
        self.conv3 = nn.Conv2d(64, 64, kernel_size=3, padding=pad)
        self.conv4 = nn.Conv2d(64, out_channels, kernel_size=4)
        self.avgpool1 = nn.AvgPool2d(kernel_size=2, stride=2, padding=pad)
        self.avgpool2 = nn.AvgPool2d(kernel_size=2, stride=2, padding=pad)


_NETWORKS: dict[str, Any] = {
    "tiny": TinyPatchDescriptionNetwork,
    "small": SmallPatchDescriptionNetwork,
    "medium": MediumPatchDescriptionNetwork,
}


def check_size(model_size: str) -> str:
    """Return a size as plain text; anomalib's enum is taken too.

    Raises:
        OptionError: No such size.
    """
    size = str(getattr(model_size, "value", model_size))
    if size not in SIZES:
        raise OptionError(f"EfficientAd: {unknown_name('model_size', size, SIZES)}")
    return size


def patch_description_network(model_size: str, out_channels: int, *, padding: bool, seed: int, purpose: str) -> Any:
    """Return a network from images (B, 3, H, W) in [0, 1] to (B, out_channels, h, w), with weights of the seed's."""
    with seeded(seed, f"efficient_ad {purpose}"):
        return _NETWORKS[model_size](out_channels=out_channels, padding=padding)


def find_teacher(model_size: str, teacher: str | Path | None) -> Path:
    """Return the weights file of a teacher: the one given, or one of the usual names in the weights folders.

    Raises:
        WeightsError: There is none; says what to fetch or to run.
    """
    if teacher is not None:
        try:
            return find_weights(f"pdn_{model_size}", teacher)
        except WeightsError as error:
            raise WeightsError(f"{str(error).partition('Run `')[0].rstrip()}\n{_fix(model_size)}") from None
    names = [f"pretrained_teacher_{model_size}{suffix}" for suffix in (".pth", ".safetensors")]
    looked = [folder / name for folder in paths.weights_dirs() for name in names]
    found = next((path for path in looked if path.is_file()), None)
    if found is None:
        places = "\n".join(f"  {path}" for path in looked)
        raise WeightsError(
            f"EfficientAd needs a teacher, and there is none of size '{model_size}'.\nLooked for:\n{places}\n"
            f"{_fix(model_size)}"
        )
    logger.info("EfficientAd's teacher: %s (found by name)", found)
    return found


def _fix(model_size: str) -> str:
    fetch = f"Fetch {FETCH} and put its pretrained_teacher_{model_size}.pth there. Or distil"
    return (
        f"{'Distil' if model_size == 'tiny' else fetch} one from a backbone that you have: "
        f"`{paths.program()} weights distil {DEFAULT} --model_size {model_size}`: it knows what that backbone "
        "and the images it is distilled on show, no more. Or ask for random weights by name: teacher='random': "
        "differences between student and teacher then say little about what a defect is."
    )


def load_teacher(network: nn.Module, path: Path) -> dict[str, Any]:
    """Fill a teacher from its file and return what a record says of it.

    Raises:
        WeightsError: A file for another network.
    """
    state = read_verified_weights(path)
    wanted = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in state.items()}
    if given != wanted:
        odd = next(key for key in sorted({*wanted, *given}) if wanted.get(key) != given.get(key))
        raise WeightsError(
            f"{path} is no teacher for this model: {odd} is {given.get(odd, 'absent')} there, "
            f"{wanted.get(odd, 'absent')} here. Check model_size and teacher_out_channels."
        )
    network.load_state_dict(state)
    return {"source": paths.relative(path), "sha256": file_sha256(path), "kind": "file"}


def fill_teacher(network: nn.Module, model_size: str, teacher: str | Path | None, seed: int) -> dict[str, Any]:
    """Fill a teacher with the weights asked for and return its record; "random" leaves those of its construction.

    Raises:
        WeightsError: There is no such file, or it is for another network.
    """
    if teacher != RANDOM:
        return teacher_record(model_size, load_teacher(network, find_teacher(model_size, teacher)))
    logger.warning("EfficientAd's teacher has RANDOM weights (seed %d), as asked for", seed)
    facts = {"source": f"random(seed={seed})", "sha256": tensors_sha256(network.state_dict()), "kind": "random"}
    return teacher_record(model_size, facts)


def teacher_record(model_size: str, facts: dict[str, Any] | None) -> dict[str, Any]:
    """Return the teacher in the form of a backbone's record."""
    known = facts or {"source": "none", "sha256": "", "kind": "none"}
    return {"name": f"pdn_{model_size}", **known, "spec": None}


@torch.no_grad()
def channel_statistics(network: nn.Module, batches: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of each output channel over batches of images, (1, C, 1, 1) each."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for images in batches:
        output = network(images).double()
        count += output[:, 0].numel()
        total = total.to(output) + output.sum(dim=(0, 2, 3))
        squares = squares.to(output) + (output**2).sum(dim=(0, 2, 3))
    mean = total / count
    std = (squares / count - mean**2).clamp_min(0).sqrt()
    return mean.float()[None, :, None, None], std.float()[None, :, None, None]


def floored_deviations(std: torch.Tensor, general: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Raise deviations of channels on the training images to a share of those on general images (both (1, C, 1, 1)).

    On flat backgrounds a channel hardly varies, and divided by next to nothing the smallest difference would outweigh
    all other channels; on blank images there is nothing to divide by. The channels of MVTec AD's bottles and
    transistors deviate at least 0.58 times as much as on general images.

    Returns:
        The deviations, and how many channels were raised.
    """
    floor = (MIN_DEVIATION * general).clamp_min(1e-6)
    return torch.maximum(std, floor), int((std < floor).sum())
