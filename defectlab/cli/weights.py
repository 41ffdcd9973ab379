"""Commands about backbone weights."""

from pathlib import Path

from jsonargparse import ArgumentParser

from defectlab.cli.command import Command
from defectlab.utils import paths
from defectlab_runtime import names


def weights_list() -> None:
    """List known and local backbone weights."""
    from defectlab.backbones.weights import list_weights

    for entry in list_weights():
        where = paths.relative(entry.path) if entry.path else entry.address
        file = names.terminal(entry.file)
        print(f"{file:<48} {entry.state:<10} {entry.name or '?':<16} {entry.licence or '':<24} {where}")


def weights_get(name: str) -> None:
    """Download weights into weights/; resumes, and verifies the hash.

    Args:
        name: As `defectlab weights list` shows it.
    """
    from defectlab.backbones.weights_download import get
    from defectlab.utils.progress import progress_bar

    with progress_bar(name, None, of_bytes=True) as progress:
        path = get(name, progress=progress)
    print(paths.relative(path))


def weights_verify(names: list[str] | None = None) -> int:
    """Compare local weights with their recorded hashes.

    Args:
        names: Which; default is all.
    """
    from defectlab.backbones.weights import verify

    results = verify(names)
    for result in results:
        print(f"{result.file:<48} {result.state}")
    return 1 if any(result.state == "changed" for result in results) else 0


def weights_import(file: str, name: str | None, overwrite: bool) -> None:
    """Check a weights file, copy it into weights/ and record where it came from."""
    from defectlab.backbones.weights_import import import_file

    print(paths.relative(import_file(Path(file), name, overwrite=overwrite)))


def weights_distil(
    backbone: str,
    weights: str | None = None,
    model_size: str = "small",
    layers: list[str] | None = None,
    images: str | None = None,
    steps: int = 2000,
    batch_size: int = 8,
    seed: int = 42,
    output: str | None = None,
    overwrite: bool = False,
) -> None:
    """Make a teacher for EfficientAD from a backbone, and write it into weights/.

    Args:
        backbone: Whose features it learns.
        weights: The backbone's file, or `random`; default is looked for by name.
        model_size: tiny, small or medium.
        layers: Of the backbone; default is layer2 and layer3, or those of the same strides.
        images: Folder of images to learn on; default is a generated set.
        steps: Optimiser steps.
        batch_size: Images a step.
        seed: Of the teacher and the images drawn.
        output: File to write; default is pretrained_teacher_SIZE.safetensors in weights/.
        overwrite: Replace a file that is there.
    """
    from defectlab.backbones.loading import load_backbone
    from defectlab.models.efficient_ad.distillation import distil_teacher

    path = distil_teacher(
        load_backbone(backbone, weights=weights, seed=seed),
        model_size=model_size,
        layers=layers,
        images=images,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        output=output,
        overwrite=overwrite,
    )
    print(paths.relative(path))


def _import_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("file", type=str, help="The file.")
    parser.add_argument("--name", type=str, help="Backbone it is for; default is found by its tensors.")
    parser.add_argument("--overwrite", action="store_true", help="Replace another file of this name.")


COMMANDS = {
    "list": Command(weights_list),
    "get": Command(weights_get),
    "verify": Command(weights_verify),
    "import": Command(weights_import, _import_arguments),
    "distil": Command(weights_distil),
}
