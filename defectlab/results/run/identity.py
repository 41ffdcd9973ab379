"""Identity of an experiment, which equal experiments share, and readable names of runs."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from defectlab_runtime import names
from defectlab_runtime.errors import OptionError

# Options for where images are stored and how fast they are read change results only by rounding, and k_shots asks for
# fits beside the run, which stays the same.
_NOT_IDENTITY = {
    "data": {
        # content counts, not location; the manifest has the categories
        *("root", "name", "num_workers", "eval_batch_size", "valid_area_mask", "categories"),
        *("k_shots", "k_shot_draws"),
    },
    "trainer": {"accelerator", "devices", "strategy"},
    "backbone": {"weights"},
    "model": set[str](),
}


MAX_DIFFERING = 4  # settings that a suffix names
MAX_VALUE, MAX_SUFFIX = 24, 60  # characters
MAX_RUN_NAME = 100  # bytes, before a suffix
_NOT_IN_RUN = re.compile(r"[^\w.+=@]+")
_NUMBERS = ("n_features", "coreset_sampling_ratio", "num_neighbors", "latent_dim", "explained_variance", "n_components")


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

    Raises:
        OptionError: A setting holds a whole number of thousands of digits.
    """
    for key, value in facts.items():
        _text(key, value)
    return hashlib.sha256(json.dumps(dict(facts), sort_keys=True, default=str).encode()).hexdigest()[:12]


def _text(key: str, value: Any) -> str:
    try:
        return str(value)
    except ValueError:  # Python converts no whole number of so many digits
        raise OptionError(f"{key} holds a whole number of thousands of digits, which no record can hold.") from None


def readable_name(model: str, backbone: str, options: Mapping[str, Any], epochs: int | None) -> str:
    """Return a readable run name of the backbone, the layers and the numbers that are usually varied.

    >>> readable_name("patchcore", "resnet18", {"layers": ["layer2", "layer3"], "coreset_sampling_ratio": 0.1,
    ...                "num_neighbors": 5}, 1)
    'resnet18_layer2-layer3_0.1_5'
    >>> readable_name("cflow", "resnet18", {"layers": ["layer1"]}, 30)
    'resnet18_layer1_30ep'

    Raises:
        OptionError: A number has thousands of digits.
    """
    parts = ["" if backbone == "none" else backbone, "-".join(map(str, options.get("layers", ())))]
    parts += [_text(key, options[key]) for key in _NUMBERS if key in options]
    if model not in ("padim", "patchcore", "subspace") and epochs is not None:
        parts.append(f"{epochs}ep")
    return run_part("_".join(part for part in parts if part))


def differing_suffix(facts: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return a suffix of the differing settings, for a name already taken by another experiment.

    What cannot be read in a few characters (other images or weights, a mapping, more than four settings) is a part of
    the id instead, once and at the end.

    >>> differing_suffix({"seed": 7, "model.image_size": [512, 512]}, {"seed": 42, "model.image_size": [256, 256]})
    '_image_size-512x512_seed-7'
    >>> differing_suffix({"seed": 7, "data.manifest": "1"}, {"seed": 42, "data.manifest": "2"})
    '_data_seed-7_2a9a6e'
    """
    differing = [key for key in sorted(set(facts) | set(other)) if facts.get(key) != other.get(key)]
    parts, whole = [], len(differing) <= MAX_DIFFERING
    for key in differing[:MAX_DIFFERING] if whole else ():
        short = {"data.manifest": "data", "backbone.sha256": "weights"}.get(key, key.split(".")[-1])
        text = "" if short in ("data", "weights") else _readable_value(facts.get(key))
        whole = whole and bool(text)
        parts.append(f"{short}-{text}" if text else short)
    suffix = "".join(f"_{run_part(part)}" for part in dict.fromkeys(parts))
    if len(suffix) > MAX_SUFFIX:
        suffix, whole = "", False
    return suffix if whole else f"{suffix}_{experiment_id(facts)[:6]}"


def _readable_value(value: Any) -> str:
    """Return a setting's value as a few characters of a name; empty if it has none."""
    text = "x".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return "" if isinstance(value, Mapping) or run_part(text) != text or len(text) > MAX_VALUE else text


def safe_name(text: str) -> str:
    """Replace characters that are not allowed in a folder name.

    >>> safe_name("data/bottle: 2")
    'data-bottle- 2'
    """
    return names.path(text, empty="run")


def run_part(text: str) -> str:
    """Return text as a part of the name of a run's folder: letters, digits and signs that no shell needs quoted.

    >>> run_part("my run {'a': 1}, 2"), run_part("..")
    ('my-run-a-1-2', 'run')
    """
    part = names.cut(_NOT_IN_RUN.sub("-", text).strip("-_. "), MAX_RUN_NAME)
    return names.path(part.rstrip("-_."), empty="run")


def former_name(text: str) -> str:
    """Return the name that a folder had before `run_part` and `names.path`, under which an older run still lies."""
    return "".join("-" if character in '/\\:*?"<>|\n\t' else character for character in text).strip(". ") or "run"
