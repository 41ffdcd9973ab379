"""Commands about models."""

from defectlab.cli.command import Command


def models_list() -> None:
    """List the models and what each needs: epochs, default backbone, other files; none needs masks to train."""
    from defectlab.models.registry import MODELS, OTHERS

    for title, models in (("DefectLab's:", MODELS), ("anomalib's own, by name:", OTHERS)):
        print(f"{title:<26}{'class':<21}{'epochs':<8}{'backbone':<19}what it is")
        for info in models.values():
            epochs = f"{info.epochs}" if info.epochs else f"{info.default_epochs}*"
            files = f"; needs {info.files}" if info.files else ""
            print(
                f"  {info.name:<24}{info.class_name:<21}{epochs:<8}{info.backbone or 'none':<19}{info.summary}{files}"
            )
    print("* unless trainer.max_epochs says otherwise. Masks are for pixel metrics alone: no model trains on them.")


COMMANDS = {"list": Command(models_list)}
