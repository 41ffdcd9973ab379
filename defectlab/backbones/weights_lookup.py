"""The weights that a name means: an entry of the manifest, or any network of timm with public weights."""

import logging

from defectlab.backbones import weights_manifest
from defectlab.backbones.weights_manifest import WeightsEntry

logger = logging.getLogger(__name__)


def named_entry(name: str) -> WeightsEntry | None:
    """Return the entry meant by an entry's name, a file name or a backbone's name; None if no weights are known.

    Of several the first that can be downloaded is taken, and the log names the others.
    """
    entries = weights_manifest.entries_for(name)
    with_url = [entry for entry in entries if entry.url]
    if len(with_url) > 1:
        others = ", ".join(entry.name for entry in with_url[1:])
        logger.info("'%s' means %s, the first in the manifest (others: %s)", name, with_url[0].name, others)
    return next(iter([*with_url, *entries]), None) or _timm_entry(name)


def _timm_entry(name: str) -> WeightsEntry | None:
    """Return an entry for any timm model with public weights; its mean and std come from timm."""
    import timm

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture) or (tag and name not in timm.list_models(f"{architecture}.*", pretrained=True)):
        return None
    cfg = timm.get_pretrained_cfg(name)
    if cfg is None or not cfg.hf_hub_id:
        return None
    tagged = f"{architecture}.{cfg.tag}" if cfg.tag else architecture
    return WeightsEntry(
        file=f"{tagged}.safetensors",
        name=tagged,
        architecture=architecture,
        library="timm",
        url=f"https://huggingface.co/{cfg.hf_hub_id}/resolve/main/model.safetensors",
        licence=cfg.license,
        mean=tuple(cfg.mean),
        std=tuple(cfg.std),
        input_size=(cfg.input_size[1], cfg.input_size[2]),
        interpolation=cfg.interpolation,
        description=f"timm {tagged}",
    )
