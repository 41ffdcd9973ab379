"""CFlow's scoring and its training, against plain anomalib."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from anomalib.models import Cflow as PlainCflow

from benchmarks.inputs import images, resnet18, source
from benchmarks.measure import alternate, peak_mib, relative, timed
from benchmarks.table import Row
from defectlab.models.cflow.lightning_model import Cflow

LAYERS = ["layer1", "layer2", "layer3"]
BATCH = 8


def rows() -> Iterator[Row]:
    """Yield the comparisons."""
    yield _scoring(LAYERS, BATCH, at_least=4)
    yield _scoring(LAYERS, 1, at_least=4)
    yield _scoring(LAYERS[1:], BATCH)
    yield _training(LAYERS, at_least=1.5)
    yield _training(LAYERS[1:], at_least=1.5)


def growth_sides(count: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return both sides of scoring so many images, the backbone's time not among it."""
    ours, plain = _sides(LAYERS)
    with torch.no_grad():
        embedding = ours.model.embed(ours.model.features(images(count)))
    activation = dict(zip(LAYERS, embedding, strict=True))
    stub: Any = plain.model
    stub.encoder = _Given(activation)
    batch = torch.empty(count, 3, 256, 256)

    def score() -> object:
        with torch.no_grad():
            return ours.model.score(embedding, (256, 256))

    return (lambda: plain.model(batch)), score


class _Given(torch.nn.Module):
    """In an encoder's place, features that are at hand."""

    def __init__(self, activation: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, _images: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.activation


def _sides(layers: list[str]) -> tuple[Cflow, PlainCflow]:
    """Return ours and plain with the same flows and backbone."""
    ours = Cflow(backbone=resnet18(), layers=layers)
    plain = PlainCflow(backbone="resnet18", layers=layers, pre_trained=False, visualizer=False, evaluator=False)
    plain.model.load_state_dict(ours.model.state_dict())
    return ours.eval(), plain.eval()


def _named(layers: list[str]) -> str:
    return f"ResNet-18, layers {layers[0][-1]}-{layers[-1][-1]}"


def _scoring(layers: list[str], count: int, at_least: float | None = None) -> Row:
    ours, plain = _sides(layers)
    batch = images(count)
    with torch.no_grad():
        embedding = ours.model.embed(ours.model.features(batch))
        times = alternate(lambda: plain.model(batch), lambda: ours.model(batch), repeats=5)
        backbones = alternate(lambda: plain.model.encoder(batch), lambda: ours.model.features(batch), repeats=5)
        memory = peak_mib(lambda: plain.model(batch)), peak_mib(lambda: ours.model(batch))
        alone = torch.cat([plain.model(image[None]).anomaly_map for image in batch])
        apart = float((ours.model(batch).anomaly_map.squeeze(1) - alone).abs().max() / alone.abs().max())
        flows = timed(lambda: ours.model.log_likelihoods(embedding))
    return Row(
        f"CFlow inference, {count} image{'s' if count > 1 else ''} of {source()}, {_named(layers)}",
        *times,
        *memory,
        f"maps within {apart:.0e} of plain's at batch size 1",
        note=f"backbones alone {backbones[0]:.2g} s and {backbones[1]:.2g} s, our flows {flows:.2g} s; without the "
        f"backbones {(times[0] - backbones[0]) / (times[1] - backbones[1]):.2g}x",
        at_least=at_least,
    )


def _training(layers: list[str], at_least: float | None = None) -> Row:
    """One batch of images: plain runs backbone and flows in each epoch, ours the flows alone after the first."""
    ours, plain = _sides(layers)
    batch = images(BATCH)
    with torch.no_grad():
        embedding = ours.model.embed(ours.model.features(batch))
    optimizer, plain_optimizer = ours.configure_optimizers(), plain.configure_optimizers()
    stub: Any = plain
    stub.optimizers = lambda: plain_optimizer
    stub.manual_backward = lambda loss: loss.backward()
    stub.log = lambda *_args, **_kwargs: None
    losses: dict[str, list[float]] = {"plain": [], "ours": []}

    def plain_step() -> None:
        torch.manual_seed(len(losses["plain"]))
        losses["plain"].append(plain.training_step(SimpleNamespace(image=batch))["loss"].detach().item())

    def our_step() -> None:
        random, total = torch.Generator().manual_seed(len(losses["ours"])), 0.0
        for found in ours.model.fit(embedding, random):
            found.mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            total += float(found.detach().double().sum())
        losses["ours"].append(total)

    times = alternate(plain_step, our_step, repeats=3)
    memory = peak_mib(plain_step), peak_mib(our_step)
    first, later = (relative(torch.tensor(losses["ours"][at]), torch.tensor(losses["plain"][at])) for at in (0, -1))
    steps = sum(feature[:, 0].numel() // ours.model.fiber_batch_size for feature in embedding)
    return Row(
        f"CFlow training, an epoch after the first, a batch of {BATCH} images of {source()}, {_named(layers)}",
        *times,
        *memory,
        f"loss of the first epoch {first:.0e} apart, of epoch {len(losses['ours'])} {later:.0e}",
        note=f"{steps} steps of 64 fibers each; plain also decodes the images in each epoch, which is not counted",
        at_least=at_least,
    )
