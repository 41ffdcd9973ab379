"""What an exported file says of its model: preprocessing, thresholds, ranges, origin."""

from importlib.metadata import version

from defectlab.backbones.weights_manifest import all_entries
from defectlab.models.base import BaseDetector
from defectlab.models.processors import RawPostProcessor
from defectlab.models.registry import model_info
from defectlab.results.run.run import Run
from defectlab.utils.version import __version__
from defectlab_runtime.description import BackboneFacts, Description, RunFacts
from defectlab_runtime.errors import InputError

TOOLS = {
    "onnx": ("torch", "onnx", "onnxscript"),
    "openvino": ("torch", "onnx", "openvino"),
    "torch": ("torch",),
    "torchscript": ("torch",),
}


def describe(run: Run, detector: BaseDetector, checkpoint_sha256: str, file_format: str, precision: str) -> Description:
    """Return the description of a run's model, with the run's thresholds at full precision.

    Raises:
        InputError: The model was trained with `post_processor=False`, which leaves nothing to decide by.
    """
    processor = detector.post_processor
    if not isinstance(processor, RawPostProcessor):
        raise InputError("This model was trained with post_processor=False: it has no thresholds to export.")
    info, thresholds = model_info(detector.model_name), run.record.thresholds
    return Description(
        defectlab=__version__,
        run=RunFacts(run.record.run_id, run.record.name, run.model, run.dataset, checkpoint_sha256),
        model=info.name,
        preprocessing=detector.preprocessing.to_dict(),
        image_threshold=thresholds.image.value,
        pixel_threshold=thresholds.pixel.value,
        categories={name: (one.image.value, one.pixel.value) for name, one in thresholds.categories.items()},
        score_range=(float(processor.image_min), float(processor.image_max)),
        map_range=(float(processor.pixel_min), float(processor.pixel_max)),
        relative_maps=info.relative_maps,
        has_maps=info.maps,
        backbone=_backbone(run),
        precision=precision,
        versions={"defectlab": __version__, **{tool: version(tool) for tool in TOOLS[file_format]}},
    )


def _backbone(run: Run) -> BackboneFacts | None:
    recorded = run.record.backbone
    if not recorded.sha256:
        return None
    known = [entry for entry in all_entries() if entry.sha256 == recorded.sha256]
    licence = known[0].licence if known else None
    return BackboneFacts(recorded.name, licence, recorded.sha256)
