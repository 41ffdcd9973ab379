"""Ranges of shared work in a search: trials are drawn one by one, and shared work must also serve later trials."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from defectlab.experiment import ComponentCache
from defectlab.sweeps.configurations import PREFIX, SHARED, Configuration, build_all
from defectlab.sweeps.search_space import Choices, Interval, Options, Space

SEEN = (
    "data.",
    "backbone.",
    "model.image_size",
    "model.center_crop",
)  # prefixes of the options that decide a backbone's input


def set_prefix_values(
    space: Space, trials: Sequence[tuple[Mapping[str, Any], Configuration]], components: ComponentCache
) -> list[Configuration]:
    """Set on configurations the prefix values and layers that other trials of their space can need of shared work.

    One coreset order then serves every ratio that can be drawn, one factor every `n_features`, and one pass of the
    backbone every layer, whichever trial comes first, and whether or not a search is taken up again.

    Args:
        space: Parts of the space.
        trials: Options drawn, and the configuration made of them.
        components: Backbones and datamodules of the search.

    Returns:
        Configurations that are never run, one for each group none of whose own is as large as can be.
    """
    groups: dict[Hashable, list[tuple[Mapping[str, Any], Configuration]]] = {}
    for values, one in trials:
        if one.shares:
            one.more_layers = _layers(space, values, one)
            groups.setdefault(one.group_key, []).append((values, one))
    bounds = []
    for group in groups.values():
        prefix = PREFIX[group[0][1].model.model_name]
        values, largest = max(group, key=lambda pair: pair[1].model.options[prefix])
        prefix_values, endless = _prefix_values(space, values, f"model.{prefix}")
        prefix_values = [value for value in prefix_values if _fits(largest, value)]
        if prefix_values and max(prefix_values) > largest.model.options[prefix]:
            data = largest.experiment.to_dict()
            built, _ = build_all(
                [{**data, "model": {**data["model"], prefix: max(prefix_values)}}], components, first=0
            )
            if not built:
                continue
            largest = built[0]
            largest.is_placeholder, largest.more_layers = True, group[0][1].more_layers
            bounds.append(largest)
        largest.prefix_values = () if endless else tuple(prefix_values)
    return bounds


def _fits(one: Configuration, value: float) -> bool:
    """Whether a prefix value is possible: for PaDiM at most the channels of the layers; for other models always."""
    return one.model.model_name != "padim" or value <= sum(one.model.model.feature_extractor.out_dims)


def _prefix_values(space: Space, values: Mapping[str, Any], option: str) -> tuple[list[Any], bool]:
    """Return the values an option can have with all others as in `values`, and whether there are infinitely many."""
    others = {name: value for name, value in values.items() if name != option and name not in ("model.num_neighbors",)}
    found: list[Any] = []
    endless = False
    for part in space:
        if option in part and all(name in part and _holds(part[name], value) for name, value in others.items()):
            options = part[option]
            endless = endless or isinstance(options, Interval)
            found += (options.low, options.high) if isinstance(options, Interval) else options.values
    return sorted(set(found)), endless


def _layers(space: Space, values: Mapping[str, Any], one: Configuration) -> tuple[str, ...]:
    """Return every layer that a part of the space can use with the same images and the same backbone."""
    assert one.backbone is not None
    seen = {name: value for name, value in values.items() if name.startswith(SEEN)}
    found: dict[str, None] = {}
    for part in space:
        models = part.get("model.name", Choices((one.model.model_name,))).values
        same = all(name in part and _holds(part[name], value) for name, value in seen.items())
        if same and any(name in SHARED for name in models):
            choices: Any = part.get("model.layers", Choices(())).values
            for layers in choices:
                found |= dict.fromkeys(layer for layer in layers or () if layer in one.backbone.spec.layers)
    return tuple(found)


def _holds(options: Options, value: Any) -> bool:
    if isinstance(options, Interval):
        return options.low <= value <= options.high
    return value in options.values
