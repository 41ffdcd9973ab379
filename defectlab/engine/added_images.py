"""Good images to add to a fitted model, checked against its run before anything is computed. Does not use torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from defectlab.data.image_sources import find_images
from defectlab.data.manifest.extension import with_training_images
from defectlab.data.manifest.manifest import Entry, Manifest
from defectlab.models.registry import MODELS, model_info
from defectlab.results.run.run import Run
from defectlab.results.run.setup_records import AdditionRecord
from defectlab.utils import paths
from defectlab_runtime.errors import InputError

Images = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Addition:
    """A fitted run and more good images for its model.

    Attributes:
        parent: The run.
        earlier: Its images.
        manifest: These and the added ones.
    """

    parent: Run
    earlier: Manifest
    manifest: Manifest

    @property
    def added(self) -> tuple[Entry, ...]:
        """The added images."""
        known = {entry.sha256 for entry in self.earlier.entries}
        return tuple(entry for entry in self.manifest.split("train") if entry.sha256 not in known)

    @property
    def positions(self) -> list[int]:
        """The position in `manifest` of each image of `earlier`."""
        return [self.manifest.index(entry.path) for entry in self.earlier.entries]

    @property
    def record(self) -> AdditionRecord:
        """What the new run's record says of its origin."""
        names = [paths.relative(self.manifest.absolute(entry)) for entry in self.added]
        return AdditionRecord(parent=self.parent.record.run_id, run=paths.relative(self.parent.folder), images=names)


def prepare_addition(run: str | Path, images: Images) -> Addition:
    """Return the images to add to the model of a run.

    Args:
        run: Run folder, or the checkpoint in it.
        images: A file, a folder, a glob, or several of these.

    Raises:
        InputError: No run, a model that has to be trained anew, a run without checkpoint or without its own training,
            or no image that is new.
        DataError: Images that cannot be read or are in the run's validation or test set, or images of the run that have
            changed since.
    """
    parent = _fitted_run(run)
    record = parent.record
    info = model_info(record.experiment.model_name)
    if not info.adds_images:
        can = ", ".join(name for name, model in MODELS.items() if model.adds_images)
        raise InputError(
            f"Images cannot be added to {info.class_name}: it learns from all images together. Train it again on all "
            f"of them (ReviewedFolder, or copy them to the training images). Models that can be added to: {can}."
        )
    if "weights_of" in record.facts:
        raise InputError(f"{parent.folder} only tests weights of {record.facts['weights_of']}: add images to that run.")
    own = [key for key in record.experiment.data if key.endswith("_augmentations")]
    if own:
        raise InputError(
            f"{parent.folder} was trained with {', '.join(own)} given in Python, which its record cannot bring back: "
            "train again on all images, with `augment` if later ones shall be added."
        )
    if record.categories:
        raise InputError(
            f"{parent.folder} is one model for {len(record.categories)} categories, and images added to it would be of "
            "none of them: copy them to the training images of their category and train again."
        )
    parent.checkpoint_file()
    file = parent.folder / "manifest.json"
    if not file.is_file():
        raise InputError(f"{parent.folder} has no manifest.json, which says on which images it was trained.")
    earlier = Manifest.read(file)
    found = Addition(parent, earlier, with_training_images(earlier, find_images(images)))
    if not found.added:
        raise InputError(f"Nothing to add: {parent.folder.name} was trained on all of these images already.")
    return found


def _fitted_run(run: str | Path) -> Run:
    path = paths.resolve(run)
    if not path.exists():
        raise InputError(f"There is no run folder or checkpoint {path}.")
    found = Run.open(path) if path.is_dir() else Run.of_checkpoint(path)
    if found is None:
        raise InputError(f"{path} belongs to no run: give a run folder, or the checkpoint in it.")
    if found.status not in ("fitted", "finished"):
        raise InputError(f"{found.folder} is {found.status}: images are added to a fitted or finished run.")
    return found
