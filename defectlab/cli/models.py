"""Commands about models."""

from defectlab.cli.command import Command


def models_list() -> None:
    """List the models and what each needs (epochs, backbone, other files), gives (maps) and is exported as."""
    from defectlab.models.registry import MODELS, OTHERS, UNAVAILABLE

    for title, models in (("DefectLab's:", MODELS), ("anomalib's own, by name:", OTHERS)):
        print(f"{title:<26}{'class':<21}{'epochs':<8}{'backbone':<19}{'maps':<6}{'exports':<15}what it is")
        for info in models.values():
            epochs = f"{info.epochs}" if info.epochs else f"{info.default_epochs}*"
            files = f"; needs {info.files}" if info.files else ""
            exports = ", ".join(info.exports) or "-"
            print(
                f"  {info.name:<24}{info.class_name:<21}{epochs:<8}{info.backbone or 'none':<19}"
                f"{'yes' if info.maps else 'no':<6}{exports:<15}{info.summary}{files}"
            )
    print("* unless trainer.max_epochs says otherwise. Masks are for pixel metrics alone: no model trains on them.")
    print("Downloads: none by itself; a backbone's weights by `weights get NAME`, other files as said above.")
    print("anomalib's that cannot be run here:")
    for name, why in UNAVAILABLE.items():
        print(f"  {name:<24}{why}")


COMMANDS = {"list": Command(models_list)}
