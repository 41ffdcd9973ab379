"""A run mirrored to TensorBoard, into its own folder: `loggers: [tensorboard]`; `tensorboard --logdir results`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from defectlab.engine.trackers.tracker import Mirror
from defectlab.results.run.record import Run
from defectlab.utils import paths
from defectlab.utils.config_files import as_yaml
from defectlab.utils.validation import checked_options


class TensorBoardLog(Mirror):
    """Curves by images seen, metrics as scalars, settings as text, and the run's panel of pictures.

    Args:
        folder: Where, in the run folder.
    """

    name: ClassVar[str] = "tensorboard"

    @checked_options
    def __init__(self, folder: str = "tensorboard") -> None:
        super().__init__()
        self.folder = folder
        self._path = Path()
        self._writer: Any = None

    def begin(self, run: Run, stage: str) -> None:
        """Open an event file."""
        from torch.utils.tensorboard import SummaryWriter

        self._path = run.folder / self.folder
        self._writer = SummaryWriter(str(self._path))
        if stage == "train":
            self._writer.add_text("experiment", f"```yaml\n{as_yaml(run.record['experiment'])}```")

    def log_batch(self, loss: float, step: int) -> None:
        """Add the batch's loss."""
        self._writer.add_scalar("loss/batch", loss, step)

    def log_epoch(self, losses: Mapping[str, float], step: int, epoch: int) -> None:
        """Add the epoch's losses."""
        for name, value in losses.items():
            self._writer.add_scalar(f"loss/{name}", value, step)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Add the test's metrics."""
        for name, value in metrics.items():
            self._writer.add_scalar(f"metric/{name}", value, step)

    def keep(self, run: Run, files: list[Path]) -> None:
        """Add pictures as images and text files as text: TensorBoard keeps no files."""
        for file in files:
            if file.suffix == ".png":
                self._writer.add_image(file.stem, np.asarray(Image.open(file).convert("RGB")), dataformats="HWC")
            elif file.suffix == ".yaml":
                self._writer.add_text(file.name, f"```yaml\n{file.read_text(encoding='utf-8')}```")

    def end(self, failed: bool) -> None:
        """Close the event file."""
        self._writer.close()

    def where(self) -> str:
        """Return the folder."""
        return paths.relative(self._path)
