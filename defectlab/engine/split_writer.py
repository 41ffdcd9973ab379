"""Incremental writing of raw scores, maps and masks of one split, batch by batch."""

from typing import Any

from defectlab.data.manifest.manifest import Manifest
from defectlab.results.run.arrays import ArrayWriter, pack_masks
from defectlab.results.run.run import Run
from defectlab.utils import paths
from defectlab_runtime.scores import ScoreRow


class SplitWriter:
    """Collects the rows of a split's scores and writes its raw maps and its masks into the run folder."""

    def __init__(self, run: Run, split: str, manifest: Manifest) -> None:
        self.run = run
        self.split = split
        self.manifest = manifest
        self.entries = {str(manifest.absolute(entry)): entry for entry in manifest.split(split)}
        self.rows: list[ScoreRow] = []
        self._maps: ArrayWriter | None = None
        self._masks: ArrayWriter | None = None

    def add(self, batch: Any) -> None:
        """Add one batch of raw predictions, unchanged by any post-processor."""
        scores = batch.pred_score.detach().flatten().cpu().numpy()
        for path, score in zip(batch.image_path, scores, strict=True):
            entry = self.entries[path]
            names = paths.relative(path), self.split, entry.defect
            self.rows.append(ScoreRow(*names, entry.label, float(score), -1, entry.category))
        if batch.anomaly_map is None:
            return
        maps = batch.anomaly_map.detach().float().cpu().numpy()
        maps = maps.reshape(len(scores), *maps.shape[-2:])  # (B, 1, H, W) or (B, H, W) -> (B, H, W)
        if self._maps is None:
            self._maps = ArrayWriter(self.run.maps_path(self.split), len(self.entries), maps.shape[1:], "float32")
        self._maps.append(maps)
        if batch.gt_mask is not None:
            packed = pack_masks(batch.gt_mask.cpu().numpy().reshape(maps.shape) > 0)
            if self._masks is None:
                path = self.run.masks_path(self.split)
                self._masks = ArrayWriter(path, len(self.entries), packed.shape[1:], "uint8")
            self._masks.append(packed)

    def close(self) -> None:
        """Complete the files of maps and masks, and rename each to its final name."""
        for writer in (self._maps, self._masks):
            if writer:
                writer.close()

    def discard(self) -> None:
        """Remove the files of an unfinished split."""
        for writer in (self._maps, self._masks):
            if writer:
                writer.discard()
