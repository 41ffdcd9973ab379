"""Commands about models."""

from defectlab.cli.command import Command


def models_list() -> None:
    """List the models and what each needs (epochs, backbone, other files) and gives (maps, exports)."""
    from defectlab.models.model_info import EXPORTS
    from defectlab.models.registry import ANOMALIB_MODELS, MODELS, UNAVAILABLE

    infos = (MODELS | ANOMALIB_MODELS).values()
    widest = max(len(info.backbone or "none") for info in infos)
    columns = {"class": 21, "epochs": 8, "backbone": widest + 1, "maps": 6, "exports": 13}
    for title, models in (("DefectLab's:", MODELS), ("anomalib's own, by name:", ANOMALIB_MODELS)):
        heading = "".join(f"{name:<{width}}" for name, width in columns.items())
        print(f"{title:<26}{heading}what it is")
        for info in models.values():
            cells = {
                "class": info.class_name,
                "epochs": f"{info.epochs}" if info.epochs else f"{info.default_epochs}*",
                "backbone": info.backbone or "none",
                "maps": "yes" if info.maps else "no",
                "exports": "all" if info.exports == EXPORTS else ", ".join(info.exports) or "-",
            }
            shown = "".join(f"{cells[name]:<{width}}" for name, width in columns.items())
            print(f"  {info.name:<24}{shown}{info.summary}{f'; needs {info.files}' if info.files else ''}")
    print("* unless trainer.max_epochs says otherwise. Masks are for pixel metrics alone: no model trains on them.")
    print("Tiles of large images: DefectLab's all. What anomalib's own do with a batch of tiles is not known.")
    print(f"Exports: all are {', '.join(EXPORTS)}; anomalib's own models are not exported yet.")
    print("Downloads: none by itself; a backbone's weights by `weights get NAME`, other files as said above.")
    print("anomalib's that cannot be run here:")
    for name, why in UNAVAILABLE.items():
        print(f"  {name:<24}{why}")


COMMANDS = {"list": Command(models_list)}
