"""PatchCore's search and scoring against plain anomalib: the same bank, the same patches."""

import functools
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from benchmarks.inputs import images, real, resnet18
from benchmarks.measure import Work, alternate, timed
from benchmarks.table import Row
from defectlab.data.datasets import load_image

BATCH, GRID, INPUT = 8, (32, 32), (256, 256)
BANK, SIZE, NEIGHBOURS = 21_401, 384, 9  # a tenth of bottle's patches, layers 2 and 3 of ResNet-18
LAYERS = ["layer2", "layer3"]
PLAIN_WITHOUT: dict[str, Any] = {"visualizer": False, "evaluator": False, "post_processor": False}  # raw scores
FILES = 16  # images that are scored from their files


def made_up_patches(n: int, size: int, seed: int) -> torch.Tensor:
    """Patches of clusters, with most of their spread in a few directions, as a backbone's are: (n, size)."""
    shape, draws = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    centres, axes = torch.randn(200, 40, generator=shape), torch.randn(40, size, generator=shape) / 6
    latent = centres[torch.randint(0, 200, (n,), generator=draws)] + 0.5 * torch.randn(n, 40, generator=draws)
    return (latent @ axes + 0.1 * torch.randn(n, size, generator=draws)).relu_()


def bench_scoring(bank: torch.Tensor, patches: torch.Tensor, what: str, k: int = 9) -> list[Row]:
    """Time the search of the nearest row, and all of the scoring of a batch of images (search, weights, maps)."""
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel as Plain

    from defectlab import load_backbone
    from defectlab.models.patchcore.torch_model import PatchcoreModel

    network = load_backbone("resnet18", weights="random")
    model = PatchcoreModel(network, ["layer2", "layer3"], 0.1, k, 42)
    plain = Plain(backbone="resnet18", layers=["layer2", "layer3"], pre_trained=False, num_neighbors=k)
    model.memory_bank, plain.memory_bank = bank, bank
    images = patches.reshape(-1, *GRID, patches.shape[1]).permute(0, 3, 1, 2).contiguous()  # (B, C, h, w)

    def score_plainly() -> tuple[torch.Tensor, torch.Tensor]:
        distances, locations = plain.nearest_neighbors(patches, n_neighbors=1)
        distances, locations = distances.reshape(len(images), -1), locations.reshape(len(images), -1)
        scores = plain.compute_anomaly_score(distances, locations, patches)
        maps = plain.anomaly_map_generator(distances.reshape(len(images), 1, *GRID), INPUT)
        return scores, maps

    rows = []
    size = f"{len(bank):,} x {bank.shape[1]}"
    with torch.inference_mode():
        seconds = alternate(lambda: plain.nearest_neighbors(patches, 1), lambda: model.nearest_neighbors(patches, 1))
        expected, found = plain.nearest_neighbors(patches, 1)[0], model.nearest_neighbors(patches, 1)[0]
        share = float(((found - expected).abs() / (1e-4 * expected + 1e-3 * patches.norm(dim=1))).max())
        equal = f"{share:.1g} of the allowed difference"
        rows.append(Row(f"nearest row, {what}, bank {size}", *seconds, None, None, equal, at_least=3))
        seconds = alternate(score_plainly, lambda: model.score(images, INPUT))
        difference = max(
            float(((ours - theirs).abs() / theirs.abs().amax()).max())
            for ours, theirs in zip(model.score(images, INPUT), score_plainly(), strict=True)
        )
        equal = f"scores and maps {difference:.1g} of the largest apart"
        rows.append(Row(f"search and scoring, {what}, bank {size}", *seconds, None, None, equal, at_least=3))
    return rows


def bench_neighbours(bank: torch.Tensor | None = None, patches: torch.Tensor | None = None) -> list[Row]:
    """Compare on real patches where they are given, else on made-up ones: `BATCH` images of 1,024 patches."""
    what = f"{BATCH} images, real patches"
    if bank is None or patches is None:
        what = f"{BATCH} images, made-up patches"
        bank, patches = made_up_patches(BANK, SIZE, 1), made_up_patches(BATCH * GRID[0] * GRID[1], SIZE, 2)
    return bench_scoring(bank, patches, what)


def rows() -> Iterator[Row]:
    """Yield search and scoring, then images from their files to scores and maps, in three ways."""
    with tempfile.TemporaryDirectory() as folder:
        files = _files(Path(folder))
        model, plain = _models(_bank())
        with torch.inference_mode():
            chosen = _input(model, files[:BATCH])
            patches = model.model.rows(model.model.embed(model.model.features(chosen)))
            forward = min(timed(lambda: model.model.features(chosen)) for _ in range(4)) / BATCH
        yield from bench_scoring(model.model.memory_bank, patches, f"{BATCH} {_kind()} images")
        yield from _from_files(model, plain, files, forward)


def growth_sides(size: int) -> tuple[Work, Work]:
    """Plain's search and ours of 2,048 patches in a bank of `size` made-up ones."""
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel as Plain

    from defectlab.kernels.neighbours import nearest_neighbours
    from defectlab.kernels.neighbours_index import NeighboursIndex

    bank, queries = made_up_patches(size, SIZE, 1), made_up_patches(2048, SIZE, 2)
    plain = Plain(backbone="resnet18", layers=LAYERS, pre_trained=False)
    plain.memory_bank = bank
    prepared = NeighboursIndex(bank) if NeighboursIndex.is_worthwhile(bank) else None
    return (
        lambda: plain.nearest_neighbors(queries, 1),
        lambda: nearest_neighbours(queries, bank, 1) if prepared is None else prepared.nearest(queries),
    )


def _kind() -> str:
    return "bottle" if real() else "made-up"


@functools.cache
def _bank() -> torch.Tensor:
    """A tenth of the patches of bottle's good images, chosen as PatchCore does; made up where there is no bottle."""
    if real() is None:
        return made_up_patches(BANK, SIZE, 1)
    model, _ = _models(torch.zeros(1, SIZE))
    with torch.inference_mode():
        embedded = [model.model.embed(model.model.features(some)) for some in images(209).split(BATCH)]
    model.model.fit(model.model.rows(torch.cat(embedded)))
    return model.model.memory_bank.clone()


def _models(bank: torch.Tensor) -> tuple[Any, Any]:
    """Our PatchCore and anomalib's with the same backbone and bank, the latter without its visualiser."""
    from anomalib.models import Patchcore as Plain

    from defectlab import Patchcore

    ours = Patchcore(backbone=resnet18(), layers=LAYERS, coreset_sampling_ratio=0.1, num_neighbors=NEIGHBOURS)
    plain = Plain("resnet18", LAYERS, pre_trained=False, num_neighbors=NEIGHBOURS, **PLAIN_WITHOUT)
    plain.model.feature_extractor.load_state_dict(ours.model.feature_extractor.state_dict())
    for model in (ours, plain):
        model.model.memory_bank = bank
        model._is_fitted = torch.tensor([True])
        model.eval()
    return ours, plain


def _files(folder: Path) -> list[Path]:
    """Image files of bottle's test, good and bad in turn; made-up ones where there is no bottle."""
    bottle = real()
    if bottle is not None:
        found = sorted((bottle / "mvtec_bottle_512" / "test").rglob("*.jpg"))
        return found[:: max(1, len(found) // FILES)][:FILES]
    draw = np.random.default_rng(0)
    files = [folder / f"{number:02}.png" for number in range(FILES)]
    for file in files:
        Image.fromarray(draw.integers(0, 255, (64, 64, 3), dtype=np.uint8)).resize((512, 512)).save(file)
    return files


def _input(model: Any, files: Sequence[Path]) -> torch.Tensor:
    from defectlab import Detector

    found: torch.Tensor = Detector(model, None, None).model_input([load_image(file) for file in files])
    return found.as_subclass(torch.Tensor)


def _from_files(model: Any, plain: Any, files: Sequence[Path], forward: float) -> Iterator[Row]:
    """Compare whole predictions; `forward` is the seconds of the backbone alone for one of eight images."""
    from anomalib.data import PredictDataset
    from anomalib.data.dataclasses import ImageBatch
    from anomalib.engine import Engine as PlainEngine

    from defectlab import Detector, Engine

    detector = Detector(model, None, None, BATCH)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as results:
        for number, file in enumerate(files):
            (Path(folder) / f"{number:02}{file.suffix}").symlink_to(file)

        def by_plain(batch: int) -> Any:
            logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
            engine = PlainEngine(default_root_dir=results, logger=False, enable_progress_bar=False)
            loader = DataLoader(PredictDataset(folder), batch_size=batch, collate_fn=ImageBatch.collate)
            return engine.predict(model=plain, dataloaders=loader)

        def by_engine() -> Any:
            engine = Engine(default_root_dir=results, enable_progress_bar=False)
            return engine.predict(model=model, data_path=folder)

        sides: list[tuple[str, int, Work]] = [
            ("Detector, one file after the other", 1, lambda: [p for f in files for p in detector.predict(f)]),
            (f"Detector, {len(files)} files at once", BATCH, lambda: detector.predict(list(map(str, files)))),
            ("engine.predict", BATCH, by_engine),
        ]
        for name, batch, work in sides:
            seconds = [whole / len(files) for whole in alternate(functools.partial(by_plain, batch), work, 3)]
            theirs, found = _scores(by_plain(batch)), _scores(work())
            difference = float((torch.tensor(found) / torch.tensor(theirs) - 1).abs().max())
            yield Row(
                f"an image, from its file to score and map: {name}, bank {BANK:,} x {SIZE}",
                seconds[0],
                seconds[1],
                None,
                None,
                f"scores {difference:.1g} of their size apart",
                note=f"{1 / seconds[0]:.3g} and {1 / seconds[1]:.3g} images a second; the backbone alone takes "
                f"{1000 * forward:.3g} ms in eights: ours is that plus {100 * (seconds[1] / forward - 1):.0f} %",
            )


def _scores(predictions: Any) -> list[float]:
    """Scores of our predictions, or of an engine's batches, in order."""
    found: list[float] = []
    for one in predictions:
        found += one.pred_score.flatten().tolist() if hasattr(one, "pred_score") else [one.score]
    return found
