"""The states of the random generators in a checkpoint, so that a resumed training goes on as if it had not ended."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

KEY = "random_states"


class RandomStates(Callback):
    """Saves the states of the global generators and of the order of batches, and sets them where a training resumes.

    They are those of the end of an epoch. A checkpoint from before there were any resumes with fresh generators.
    """

    def __init__(self) -> None:
        self._resumed: dict[str, Any] | None = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the states to a checkpoint from which a training can go on."""
        loader = trainer.train_dataloader
        if "optimizer_states" not in checkpoint or loader is None:
            return
        name, keys, *rest = np.random.get_state()  # noqa: NPY002
        version, numbers, gauss = random.getstate()
        checkpoint[KEY] = {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
            "python": [version, list(numbers), gauss],
            "batches": loader.generator.get_state(),
            "passes": getattr(loader.sampler, "done", 0),
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Hand the state of the order of batches to the datamodule, which makes the loader afterwards."""
        self._resumed = checkpoint.get(KEY)
        datamodule = getattr(trainer, "datamodule", None)
        if self._resumed is not None and datamodule is not None:
            datamodule.resume_batches(self._resumed["batches"], self._resumed["passes"])

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the global generators at the start of the first resumed epoch."""
        state, self._resumed = self._resumed, None
        if state is None:
            return
        torch.set_rng_state(state["torch"])
        if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
            torch.cuda.set_rng_state_all(state["cuda"])
        name, keys, *rest = state["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
        version, numbers, gauss = state["python"]
        random.setstate((version, tuple(numbers), gauss))
