"""Models' names: as a class of Python has them, and as the literature writes them. Needs no model."""

_CLASSES = {"featcae": "FeatCae", "mh_patchcore": "MHPatchcore", "uninet": "UniNet"}  # not made of the name's words
TITLES = {
    "padim": "PaDiM",
    "patchcore": "PatchCore",
    "cflow": "CFlow",
    "stfpm": "STFPM",
    "fastflow": "FastFlow",
    "featcae": "FeatCAE",
    "draem": "DRAEM",
    "csflow": "CS-Flow",
    "efficient_ad": "EfficientAD",
}


def class_name(model: str) -> str:
    """Return the class name of a model by its name in the registry.

    >>> class_name("efficient_ad"), class_name("featcae")
    ('EfficientAd', 'FeatCae')
    """
    return _CLASSES.get(model) or "".join(word.capitalize() for word in model.split("_"))


def title(model: str) -> str:
    """Return the name of a model in the literature; one that has none is called as its class.

    >>> title("efficient_ad"), title("linear_vae")
    ('EfficientAD', 'LinearVae')
    """
    return TITLES.get(model) or class_name(model)
