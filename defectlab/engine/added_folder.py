"""The images of a training that adds good ones to a fitted model: those alone are trained on."""

from functools import cached_property

from defectlab.data.folder import Folder
from defectlab.data.manifest.manifest import Entry, Manifest
from defectlab.engine.added_images import Addition
from defectlab.results.run.setup_records import AdditionRecord


class AddedFolder(Folder):
    """The images of a run and more good ones, with the options of the run but for `k_shots`, which train anew."""

    def __init__(self, addition: Addition) -> None:
        options = addition.parent.record.experiment.data
        super().__init__(**{key: value for key, value in options.items() if key != "k_shots"})
        self.addition = addition

    @cached_property
    def manifest(self) -> Manifest:
        """Manifest of the run with the added images."""
        self._is_setup = True
        return self.addition.manifest

    @property
    def training_entries(self) -> tuple[Entry, ...]:
        """The added images."""
        return self.addition.added

    @property
    def addition_record(self) -> AdditionRecord:
        """What the record says of the new run's origin."""
        return self.addition.record
