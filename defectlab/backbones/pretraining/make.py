"""`make backbone`: train the project's own backbone and write its weights file, half precision.

    python -m defectlab.backbones.pretraining.make
    python -m defectlab.backbones.pretraining.make --folder other --weights other.safetensors

The first trains in build/backbone and writes weights/defectlab_resnet18.safetensors. Ended before
its time, the same command continues from the last checkpoint.
"""

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from torch import Tensor

from defectlab.backbones.pretraining.config import Recipe
from defectlab.backbones.pretraining.train import pretrain
from defectlab.backbones.state_dicts import write_safetensors
from defectlab.backbones.weights import SHIPPED
from defectlab.utils import paths
from defectlab.utils.errors import OptionError

logger = logging.getLogger(__name__)


def write_weights(state: Mapping[str, Tensor], path: Path) -> str:
    """Write the tensors as safetensors, floats in half precision, and return the file's sha256.

    Raises:
        OptionError: A value that half precision cannot hold.

    """
    half = {key: (value.half() if value.is_floating_point() else value).contiguous() for key, value in state.items()}
    lost = [key for key, value in half.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if lost:
        raise OptionError(f"{', '.join(lost)} cannot be kept in half precision: the training has diverged.")
    return write_safetensors(half, path, {"made by": "defectlab.backbones.pretraining.make"})


def main(arguments: Sequence[str] | None = None) -> None:
    """Train by the recipe; its numbers are options, for trials."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=paths.resolve("build/backbone"))
    parser.add_argument("--weights", type=Path, default=paths.resolve("weights") / SHIPPED)
    parser.add_argument("--every", type=int, default=25, help="steps between checkpoints")
    for field in fields(Recipe):
        option = f"--{field.name.replace('_', '-')}"
        parser.add_argument(option, type=type(field.default), default=field.default, help=f"default {field.default}")
    options = vars(parser.parse_args(arguments))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    recipe = Recipe(**{field.name: options[field.name] for field in fields(Recipe)})
    sha256 = write_weights(pretrain(recipe, options["folder"], every=options["every"]), options["weights"])
    size = options["weights"].stat().st_size / 1e6
    print(f"{options['weights']}: {size:.1f} MB, sha256 {sha256}")
    print("If it replaces the shipped file: put this sha256 into defectlab/backbones/manifest.json.")


if __name__ == "__main__":
    main()
