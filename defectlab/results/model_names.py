"""Class names and literature names of models, derived without importing the models."""

_CLASSES = {"featcae": "FeatCae", "mh_patchcore": "MHPatchcore", "uninet": "UniNet"}  # not made of the name's words
TITLES = {
    "padim": "PaDiM",
    "patchcore": "PatchCore",
    "subspace": "SubspaceAD",
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
    """Return a model's name in the literature, or its class name if it has none.

    >>> title("efficient_ad"), title("linear_vae")
    ('EfficientAD', 'LinearVae')
    """
    return TITLES.get(model) or class_name(model)
