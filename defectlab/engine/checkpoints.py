"""Checkpoints that a run writes in addition to or instead of the usual one, and removal of the usual one."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anomalib.callbacks.checkpoint import ModelCheckpoint
from anomalib.engine.plugins import AnomalibCheckpointIO
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.callbacks import ModelCheckpoint as PlainModelCheckpoint

from defectlab.models.base import BaseDetector
from defectlab.models.checkpoint import write_checkpoint
from defectlab.results.run.run import Run
from defectlab.utils.files import replacing
from defectlab.utils.tensor_archive import check_archive
from defectlab.utils.validation import check_integer, checked_options

logger = logging.getLogger(__name__)


class DigestCheckpointIO(AnomalibCheckpointIO):
    """Lightning's writer and reader of checkpoints, with a digest in each that is compared before it is read."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint; on a remote file system without a digest."""
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
        else:
            with replacing(Path(path)) as partial:
                write_checkpoint(checkpoint, partial)

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint.

        Raises:
            DamagedArchiveError: It has other content than was written.
        """
        if "://" not in str(path):
            check_archive(Path(path))
        content: dict[str, Any] = super().load_checkpoint(path, *args, **kwargs)
        return content


def with_digests(trainer_arguments: Mapping[str, Any]) -> list[Any]:
    """Return Lightning's plugins with one that adds digests to checkpoints, unless the user's own writes these."""
    given = trainer_arguments.get("plugins") or []
    plugins = list(given) if isinstance(given, list | tuple) else [given]
    own = getattr(trainer_arguments.get("strategy"), "_checkpoint_io", None)
    writes = own is not None or any(isinstance(plugin, CheckpointIO) for plugin in plugins)
    return plugins if writes else [*plugins, DigestCheckpointIO()]


class KeepEpochs(Callback):
    """Saves the weights at regular epochs and of the last epoch: `Engine(callbacks=[KeepEpochs(10)])`.

    Files `<model>_<run name>_<epoch or last>.ckpt`, epochs counted from 1, in the run's `weights/epochs/`: LinearVae
    with 128 latent numbers and 60 epochs gives `linear_vae_128_60_10.ckpt` to `linear_vae_128_60_last.ckpt`. Each is
    complete: `Detector.load` takes it, with the thresholds of the last validation up to that epoch. The run's own
    checkpoint stays what it would be without them.

    Args:
        every: Epochs between two files.
        optimizer: Whether they hold the optimiser's state too, so that a training can go on from any of them: three
            times the size with Adam.

    Raises:
        OptionError: `every` is no positive whole number.
    """

    @checked_options
    def __init__(self, every: int = 10, optimizer: bool = False) -> None:
        check_integer("KeepEpochs", "every", every, low=1)
        self.every = every
        self.optimizer = optimizer
        self._files: list[Path] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn where an epoch whose weights are written is not validated."""
        self._files = []
        between = trainer.check_val_every_n_epoch or 1
        if self.every % between or (trainer.max_epochs or 0) % between:
            logger.warning(
                "KeepEpochs: one validation in %d epochs; where a kept epoch has none, its thresholds are those of the "
                "one before it.", between,
            )  # fmt: skip

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the weights of every so many epochs."""
        epoch = trainer.current_epoch + 1
        if epoch % self.every == 0:
            self._write(trainer, pl_module, str(epoch))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the weights of the last epoch, whichever epoch the run ends with."""
        self._write(trainer, pl_module, "last")
        size = sum(file.stat().st_size for file in self._files)
        logger.info("Kept %d epochs (%.1f MB) in %s", len(self._files), size / 1e6, self._files[-1].parent)

    def _write(self, trainer: Trainer, pl_module: LightningModule, epoch: str) -> None:
        assert isinstance(pl_module, BaseDetector)
        run = Run.open(trainer.default_root_dir)
        name = run.record.name.removesuffix("ep")  # 128_60ep
        file = run.folder / "weights" / "epochs" / f"{pl_module.model_name}_{name}_{epoch}.ckpt"
        trainer.save_checkpoint(file, weights_only=not self.optimizer)
        self._files.append(file)


def weights_only_checkpoints(given: Sequence[Callback], run: Run) -> list[Callback]:
    """Return a callback that writes each epoch's weights without optimiser state; nothing if one is among the given."""
    if any(isinstance(callback, PlainModelCheckpoint) for callback in given):
        return []
    folder = run.checkpoint.parent
    name = run.checkpoint.stem
    return [ModelCheckpoint(dirpath=folder, filename=name, auto_insert_metric_name=False, save_weights_only=True)]


def drop_checkpoint(run: Run) -> None:
    """Remove a tested run's own checkpoint, and record the removal."""
    if not run.checkpoint.is_file():
        return
    size = run.checkpoint.stat().st_size
    run.checkpoint.unlink()
    run.update(checkpoint=None)
    logger.info("Removed the checkpoint (%.1f MB), as asked for by keep_checkpoint='none'", size / 1e6)
