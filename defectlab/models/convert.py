"""Conversion of a trained model to a checkpoint that plain anomalib's own classes load."""

import logging
from pathlib import Path
from typing import Any

from defectlab.models.checkpoint import CHECKPOINT_KEY, read_checkpoint, read_checkpoint_record, write_checkpoint
from defectlab.models.registry import model_info
from defectlab.results.run.run import Run
from defectlab.utils.files import replacing
from defectlab_runtime.errors import InputError, OptionError

logger = logging.getLogger(__name__)

TARGETS = ("anomalib",)
# Options that change how an image is scored, and that plain anomalib's models of the same name do not have.
OWN_SCORES = (
    *("score_computation", "compress_memory_bank", "pre_padding", "scale_features"),
    *("distance", "neighbourhood", "top_share", "foreground_mask"),
)


def check_target(to: str) -> None:
    """Check that a conversion target is one of `TARGETS`.

    Raises:
        OptionError: With the targets there are.
    """
    if to not in TARGETS:
        raise OptionError(f"convert --to must be {', '.join(TARGETS)}, got {to!r}.")


def to_anomalib(source: str | Path, output: Path | None = None) -> Path:
    """Write the checkpoint of a run folder or .ckpt file as one that plain anomalib loads, and load it to be sure.

    PaDiM's covariances become anomalib's inverses: images x features of memory become features x features. Everything
    else is as it was, the DefectLab record included, so `Detector` reads the result too.

    Args:
        source: A run folder or a .ckpt file.
        output: The file to write; None is `weights/anomalib/model.ckpt` beside the checkpoint's own folder.

    Raises:
        InputError: No such run or checkpoint, or one that plain anomalib cannot rebuild.
    """
    source = Path(source)
    run = Run.open(source) if source.is_dir() or source.suffix != ".ckpt" else Run.of_checkpoint(source)
    checkpoint_file = run.checkpoint_file() if run is not None and source.suffix != ".ckpt" else source
    record = read_checkpoint_record(checkpoint_file)
    plain_class = _plain_class(record["model"])
    for part, what in (("area", "at a part of each image"), ("tiling", "at images tile by tile")):
        if part in record["preprocessing"]:
            raise InputError(f"{checkpoint_file} looks {what}, which plain anomalib's checkpoints cannot say.")
    for option in OWN_SCORES:
        if option in record["options"]:
            raise InputError(f"{checkpoint_file} scores with {option}, which plain anomalib does not know.")
    if output is None:
        output = checkpoint_file.parent.parent / "anomalib" / checkpoint_file.name

    from defectlab.models.padim.statistics import in_anomalibs_form

    checkpoint = read_checkpoint(checkpoint_file)
    if record["model"] == "padim":
        checkpoint["state_dict"] = in_anomalibs_form(checkpoint["state_dict"], "model.gaussian.")
    checkpoint[CHECKPOINT_KEY] = checkpoint[CHECKPOINT_KEY] | {"converted": "anomalib"}
    with replacing(output) as unfinished:
        write_checkpoint(checkpoint, unfinished)
        try:
            plain_class.load_from_checkpoint(unfinished, map_location="cpu")
        except Exception as error:
            raise InputError(
                f"Plain anomalib cannot rebuild {checkpoint_file}: {str(error).splitlines()[0]} It builds backbones by "
                f"their timm names; this model has {record['backbone']['name']}."
            ) from error
    logger.info("Plain anomalib loads it: anomalib.models.%s.load_from_checkpoint", plain_class.__name__)
    return output


def _plain_class(name: str) -> Any:
    import anomalib.models

    class_name = model_info(name).class_name
    plain = getattr(anomalib.models, class_name, None)
    if plain is None:
        raise InputError(f"anomalib has no {class_name}: only its own models can be written for it.")
    return plain
