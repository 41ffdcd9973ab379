"""Identity of an experiment, which equal experiments share, and readable names of runs."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# Options for where images are stored and how fast they are read change results only by rounding.
_NOT_IDENTITY = {
    "data": {"root", "name", "num_workers", "eval_batch_size", "valid_area_mask"},  # content counts, not location
    "trainer": {"accelerator", "devices", "strategy"},
    "backbone": {"weights"},
    "model": set[str](),
}


_NUMBERS = ("n_features", "coreset_sampling_ratio", "num_neighbors", "latent_dim")


def experiment_facts(experiment: Mapping[str, Any], manifest_hash: str, backbone_sha256: str) -> dict[str, Any]:
    """Return the settings and hashes that identify an experiment, flat and keyed by dotted name."""
    facts: dict[str, Any] = {"seed": experiment["seed"]}
    for section, left_out in _NOT_IDENTITY.items():
        for key, value in experiment.get(section, {}).items():
            if key not in left_out and value is not None and not key.endswith("_dir"):
                facts[f"{section}.{key}"] = value
    pixel_size = experiment.get("evaluation", {}).get("pixel_size", "input")
    if pixel_size != "input":  # the default is left out, so that older runs without this option keep their identity
        facts["evaluation.pixel_size"] = pixel_size
    return facts | {"data.manifest": manifest_hash, "backbone.sha256": backbone_sha256}


def experiment_id(facts: Mapping[str, Any]) -> str:
    """Return a hash of twelve hex digits that is equal for equal experiments on every machine.

    >>> experiment_id({"seed": 42}) == experiment_id({"seed": 42})
    True
    """
    return hashlib.sha256(json.dumps(dict(facts), sort_keys=True, default=str).encode()).hexdigest()[:12]


def readable_name(model: str, backbone: str, options: Mapping[str, Any], epochs: int | None) -> str:
    """Return a readable run name of the backbone, the layers and the numbers that are usually varied.

    >>> readable_name("patchcore", "resnet18", {"layers": ["layer2", "layer3"], "coreset_sampling_ratio": 0.1,
    ...                "num_neighbors": 5}, 1)
    'resnet18_layer2-layer3_0.1_5'
    >>> readable_name("cflow", "resnet18", {"layers": ["layer1"]}, 30)
    'resnet18_layer1_30ep'
    """
    parts = ["" if backbone == "none" else backbone, "-".join(options.get("layers", ()))]
    parts += [str(options[key]) for key in _NUMBERS if key in options]
    if model not in ("padim", "patchcore") and epochs is not None:
        parts.append(f"{epochs}ep")
    return safe_name("_".join(part for part in parts if part))


def differing_suffix(facts: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return a suffix of the differing settings, for a name already taken by another experiment.

    >>> differing_suffix({"seed": 7, "model.image_size": [512, 512]}, {"seed": 42, "model.image_size": [256, 256]})
    '_image_size-512x512_seed-7'
    """
    parts = []
    for key in sorted(set(facts) | set(other)):
        if facts.get(key) != other.get(key):
            value = facts.get(key)
            short = {"data.manifest": "data", "backbone.sha256": "weights"}.get(key, key.split(".")[-1])
            text = "x".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            parts.append(f"{short}-{text[:8] if short in ('data', 'weights') else text}")
    if len(parts) > 4:  # too many to read; a part of the id is used instead
        return f"_{experiment_id(facts)[:6]}"
    return safe_name("".join(f"_{part}" for part in dict.fromkeys(parts)))[:80]


def safe_name(text: str) -> str:
    """Replace characters that are not allowed in a folder name.

    >>> safe_name("data/bottle: 2")
    'data-bottle- 2'
    """
    return "".join("-" if character in '/\\:*?"<>|\n\t' else character for character in text).strip(". ") or "run"
