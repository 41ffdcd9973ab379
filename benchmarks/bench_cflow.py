"""CFlow's scoring and its training, against plain anomalib."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from anomalib.models import Cflow as PlainCflow

from benchmarks.inputs import images, resnet18, source
from benchmarks.measure import alternate, peak_mib, relative, timed
from benchmarks.table import Row
from defectlab.models.cflow import Cflow

LAYERS = ["layer2", "layer3"]
BATCH = 8


def rows() -> Iterator[Row]:
    """Yield the comparisons."""
    yield from _scoring(*_sides())
    yield from _training()


def _sides() -> tuple[Cflow, PlainCflow]:
    """Return ours and plain with the same flows and backbone."""
    ours = Cflow(backbone=resnet18(), layers=LAYERS)
    plain = PlainCflow(backbone="resnet18", layers=LAYERS, pre_trained=False, visualizer=False, evaluator=False)
    plain.model.load_state_dict(ours.model.state_dict())
    return ours.eval(), plain.eval()


def _scoring(ours: Cflow, plain: PlainCflow) -> Iterator[Row]:
    batch = images(BATCH)
    with torch.no_grad():
        embedding = ours.model.embed(ours.model.features(batch))
        backbone = timed(lambda: ours.model.features(batch))
        times = alternate(lambda: plain.model(batch), lambda: ours.model(batch), repeats=3)
        memory = peak_mib(lambda: plain.model(batch)), peak_mib(lambda: ours.model(batch))
        alone = torch.cat([plain.model(image[None]).anomaly_map for image in batch])
        apart = float((ours.model(batch).anomaly_map.squeeze(1) - alone).abs().max())
        flows = timed(lambda: ours.model.log_likelihoods(embedding))
    yield Row(
        f"CFlow inference, 8 images of {source()}, ResNet-18, layers 2-3",
        *times,
        *memory,
        f"maps within {apart:.0e} of plain's at batch size 1",
        note=f"of ours, backbone {backbone:.2g} s, flows {flows:.2g} s",
        at_least=4,
    )


def _training() -> Iterator[Row]:
    """One batch of images: plain runs backbone and flows in each epoch, ours the flows alone after the first."""
    ours, plain = _sides()
    batch = images(BATCH)
    with torch.no_grad():
        embedding = ours.model.embed(ours.model.features(batch))
    optimizer = ours.configure_optimizers()
    plain_optimizer = plain.configure_optimizers()
    stub: Any = plain
    stub.optimizers = lambda: plain_optimizer
    stub.manual_backward = lambda loss: loss.backward()
    stub.log = lambda *_args, **_kwargs: None
    losses: dict[str, list[float]] = {"plain": [], "ours": []}

    def plain_step() -> None:
        torch.manual_seed(len(losses["plain"]))
        losses["plain"].append(float(plain.training_step(SimpleNamespace(image=batch))["loss"]))

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
    yield Row(
        f"CFlow training, an epoch after the first, a batch of 8 images of {source()}",
        *times,
        *memory,
        f"loss of the first batch {first:.0e} apart, of batch {len(losses['ours'])} {later:.0e}",
        note=f"{8 * (1024 + 256) // 64} fiber batches of 64; images at hand for plain, which also decodes them",
        at_least=1.5,
    )
