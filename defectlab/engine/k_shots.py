"""Fits of a model with a few of its training images (`data.k_shots`), on features that are extracted once for all."""

import copy
import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from defectlab.backbones.backbone import Backbone
from defectlab.backbones.feature_cache.extraction import Features, extract
from defectlab.backbones.feature_cache.store import FeatureStore
from defectlab.backbones.registry import BackboneSpec
from defectlab.backbones.weights import WeightsInfo
from defectlab.data.datasets import masks_on_input
from defectlab.data.folder import Folder
from defectlab.data.manifest.k_shots import draw_order
from defectlab.data.manifest.manifest import Entry, check_unchanged
from defectlab.evaluation.pixel.maps_and_masks import PixelImages, maps_problem
from defectlab.evaluation.suite import evaluate_images
from defectlab.models.base import BaseDetector
from defectlab.models.k_shots import PlannedFits, plan_fits
from defectlab.models.memory_bank import BATCH_SIZE, embed
from defectlab.results.evaluate import columns
from defectlab.results.k_shots import METRICS, read_fit_scores, write_fit_scores
from defectlab.results.pixel_grid import images_of_maps, pixel_labels
from defectlab.results.run.arrays import pack_masks
from defectlab.results.run.k_shot_records import KShotRecord, KShotsRecord
from defectlab.results.run.ownership import release
from defectlab.results.run.run import Run
from defectlab.utils import paths
from defectlab.utils.progress import progress_bar
from defectlab.utils.seeds import seeded
from defectlab_runtime.errors import InputError

logger = logging.getLogger(__name__)


def fit_few(
    model: BaseDetector, datamodule: Folder, run: Run, device: torch.device, store: FeatureStore | None = None
) -> bool:
    """Make the fits that `data.k_shots` asks for and that a finished run lacks, and record each as it ends.

    Training images are drawn from the run's own by the seed of the split; each fit is tested on the run's test images.
    All read features that are extracted once, from a copy of the model: the model itself stays as it is. The fit on
    all images is the run. A killed study goes on after its last fit when it is called again.

    Args:
        model: With the run's options; it need not be fitted.
        datamodule: The run's images.
        run: A finished run of both.
        device: Where features and fits are computed.
        store: Where features are kept; None is the project's cache.

    Returns:
        Whether there was anything to do.

    Raises:
        InputError: The model, the images or the options do not allow it, or another process works on this run.
    """
    plan = plan_fits(model, datamodule)
    if plan is None or not (run.record.k_shots or KShotsRecord(images=plan.images)).lacks(plan.keys):
        return False
    if run.record.partial:
        logger.warning("k_shots: left out, since the run is partial: %s", run.record.partial)
        return False
    run.claim()
    try:
        _Study(model, datamodule, run, plan).run(device, store or FeatureStore())
    finally:
        release(run.folder)
    return True


class _Study:
    """The fits of one run: those on record, and those to come."""

    def __init__(self, model: Any, datamodule: Folder, run: Run, plan: PlannedFits) -> None:
        self.model, self.datamodule, self.run_on_record, self.plan = model, datamodule, run, plan
        self.manifest = datamodule.manifest
        self.rows = run.scores("test")
        earlier, scores = run.record.k_shots, read_fit_scores(run)
        if earlier is None or scores is None or scores.shape[1] != len(self.rows) or len(scores) < len(earlier.fits):
            if earlier is not None:
                logger.warning("k_shots: the scores of the fits on record are not of their run: all are made again")
            earlier, scores = KShotsRecord(images=plan.images), np.empty((0, len(self.rows)))
        self.fits: list[KShotRecord] = list(earlier.fits)
        self.scores: list[np.ndarray] = list(scores[: len(self.fits)])  # it has one more if killed before the record
        self.seconds = earlier.seconds
        self._last = time.perf_counter()

    def run(self, device: torch.device, store: FeatureStore) -> None:
        """Make the fits that are not on record, the smallest first."""
        done = {fit.key for fit in self.fits}
        missing = [key for key in self.plan.keys if key not in done]
        if done:
            logger.info("k_shots: %d fits are on record, %d are to come", len(done), len(missing))
        for key in missing:
            if key[0] == self.plan.images:
                self._add(*self._whole(key))
        few = [key for key in missing if key[0] < self.plan.images]
        if few:
            self._fit(few, device, store)

    def _fit(self, few: Sequence[tuple[int, int, int]], device: torch.device, store: FeatureStore) -> None:
        network = copy.deepcopy(self.model.model).to(device)
        features = self._features(network, device, store)
        logger.info("k_shots: %d fits on features of %d images, extracted or read in %.1f s", len(few),
                    len(self.manifest.entries), self._lap())  # fmt: skip
        train = [entry.path for entry in self.manifest.split("train")]
        orders = {(draw, seed): draw_order(train, seed, draw) for _, draw, seed in few}
        with (
            self._pixels() as (maps, images, lack),
            progress_bar("k_shots", len(few)) as progress,
            _fitting(self.model, network),
        ):
            for number, (k, draw, seed) in enumerate(few, 1):
                begin, names = time.perf_counter(), orders[draw, seed][:k]
                try:
                    scores = self._scores(network, features, names, maps, device)
                    metrics, reasons = self._metrics(scores, maps, images, lack)
                except InputError as error:  # these images do not allow the fit, others may
                    logger.warning("k_shots: %d images, draw %d: %s", k, draw, error)
                    scores = np.full(len(self.rows), np.nan)
                    metrics, reasons = dict.fromkeys(METRICS), dict.fromkeys(METRICS, str(error))
                seconds = round(time.perf_counter() - begin, 3)
                options: dict[str, Any] = {"metrics": metrics, "metric_reasons": reasons, "seconds": seconds}
                self._add(KShotRecord(k=k, draw=draw, seed=seed, images=names, **options), scores)
                progress(number, len(few))
        check_unchanged(self.manifest)
        logger.info("k_shots: %d fits in %.1f s", len(few), self.seconds)

    def _lap(self) -> float:
        """Add the seconds since the last call, or since the beginning, to those of the study; return the sum."""
        now = time.perf_counter()
        self.seconds, self._last = self.seconds + now - self._last, now
        return self.seconds

    def _add(self, fit: KShotRecord, scores: np.ndarray) -> None:
        """Put a fit and its scores on record."""
        self.fits.append(fit)
        self.scores.append(scores)
        write_fit_scores(self.run_on_record, np.stack(self.scores))
        its: dict[str, Any] = {"images": self.plan.images, "left_out": self.plan.left_out}
        self.run_on_record.update(k_shots=KShotsRecord(fits=self.fits, seconds=round(self._lap(), 3), **its))

    def _whole(self, key: tuple[int, int, int]) -> tuple[KShotRecord, np.ndarray]:
        """Return the fit on all images, which is the run, and its scores."""
        record = self.run_on_record.record
        stages = [record.timings[stage] for stage in ("fit", "test") if stage in record.timings]
        fit = KShotRecord(
            k=key[0],
            draw=key[1],
            seed=key[2],
            metrics={name: record.metrics.get(name) for name in METRICS},
            metric_reasons={name: reason for name, reason in record.metric_reasons.items() if name in METRICS},
            seconds=round(sum(stages), 3) if stages else None,
        )
        return fit, columns(self.rows)[0]

    def _features(self, network: Any, device: torch.device, store: FeatureStore) -> Features:
        record = self.model.backbone_record
        extractor = network.feature_extractor
        weights = WeightsInfo(source=record["source"], path=None, sha256=record["sha256"], kind=record["kind"])
        backbone = Backbone(extractor, BackboneSpec.from_dict(record["spec"]), weights)
        options: dict[str, Any] = {"device": device, "workers": self.datamodule.num_workers, "extractor": extractor}
        layers = self.model.options["layers"]
        return Features(
            self.manifest, extract(self.manifest, backbone, self.model.preprocessing, layers, store, **options)
        )

    @contextmanager
    def _pixels(self) -> Iterator[tuple[np.ndarray, PixelImages | None, str | None]]:
        """Yield maps (n, H, W) float32, in a file that every fit fills, and these with masks, or why there are none."""
        entries, preprocessing = self._tested(), self.model.preprocessing
        reduction = self.datamodule.settings.mask_reduction
        masks = [
            pack_masks(mask.numpy()[None] > 0)
            for mask in masks_on_input(self.manifest, entries, preprocessing, reduction)
        ]
        with tempfile.TemporaryFile(dir=self.run_on_record.folder) as file:  # vanishes with the process
            maps = np.memmap(file, np.float32, "w+", shape=(len(entries), *preprocessing.map_size))
            if masks:
                yield maps, images_of_maps(self.run_on_record, self.manifest, maps, np.concatenate(masks)), None
            else:
                yield maps, None, "there are no masks"

    def _tested(self) -> list[Entry]:
        """Return the test images in the order of scores.csv."""
        entries = {paths.relative(self.manifest.absolute(entry)): entry for entry in self.manifest.split("test")}
        return [entries[row.image_path] for row in self.rows]

    def _scores(
        self, network: Any, features: Features, names: Sequence[str], maps: np.ndarray, device: torch.device
    ) -> np.ndarray:
        """Fit on the named training images, in the manifest's order; return scores (n,) and fill maps (n, H, W)."""
        chosen = frozenset(names)
        train = [entry for entry in self.manifest.split("train") if entry.path in chosen]
        tested, scores = self._tested(), []
        size = self.model.preprocessing.input_size
        with torch.no_grad(), seeded(self.model.seed, "training"):
            self.model.fit_embedding(embed(network, features, train, device))
            for begin in range(0, len(tested), BATCH_SIZE):
                batch = tested[begin : begin + BATCH_SIZE]
                its_scores, its_maps = network.score(embed(network, features, batch, device), size)
                scores.append(its_scores.flatten().float().cpu().numpy())
                maps[begin : begin + len(batch)] = its_maps.float().cpu().numpy().reshape(len(batch), *maps.shape[1:])
        return np.concatenate(scores).astype(np.float64)

    def _metrics(
        self, scores: np.ndarray, maps: np.ndarray, images: PixelImages | None, lack: str | None
    ) -> tuple[dict[str, float | None], dict[str, str | None]]:
        lack = lack or maps_problem(maps, pixel_labels(self.run_on_record, self.rows))
        labels, images = columns(self.rows)[1], None if lack else images
        found = evaluate_images(scores, labels, images, lack, image_threshold=None, pixel_threshold=None)
        values = {name: found[name].value for name in METRICS}
        return values, {name: found[name].reason for name in METRICS if values[name] is None}


@contextmanager
def _fitting(model: BaseDetector, network: Any) -> Iterator[None]:
    """Let a model fit another torch model inside the block, with nothing in the log but warnings."""
    own, notes, models = model.model, model.notes, logging.getLogger("defectlab.models")
    level = models.level
    models.setLevel(logging.WARNING)
    model.model = network
    try:
        yield
    finally:
        model.model, model.notes = own, notes
        models.setLevel(level)
