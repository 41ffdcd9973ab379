"""A first look at a dataset, from its manifest: counts and sizes as tables, labels and samples as pictures."""

from collections.abc import Mapping

import numpy as np
from PIL import Image

from defectlab.data.images import as_uint8, read_image
from defectlab.data.manifest import SPLITS, Manifest
from defectlab.errors import InputError
from defectlab.figures import new_axes, rendered
from defectlab.results.charts import BAD, GOOD


def counts_table(manifest: Manifest) -> str:
    """Return the number of images by split and kind as a Markdown table."""
    counts = manifest.counts()
    kinds = sorted({kind for split in counts.values() for kind in split}, key=lambda kind: (kind != "good", kind))
    lines = ["| split | " + " | ".join(kinds) + " |", "| --- |" + " ---: |" * len(kinds)]
    lines += [
        f"| {split} | " + " | ".join(str(counts[split].get(kind, 0)) for kind in kinds) + " |" for split in SPLITS
    ]
    return "\n".join(lines)


def size_table(manifest: Manifest) -> str:
    """Return, by folder, the number of images and of sizes and the range of widths and heights, as Markdown."""
    folders: dict[str, list[tuple[int, int]]] = {}
    for entry in manifest.entries:
        folders.setdefault(entry.path.rpartition("/")[0] or ".", []).append((entry.width, entry.height))
    lines = ["| folder | images | sizes | width | height |", "| --- | ---: | ---: | ---: | ---: |"]
    for folder, sizes in folders.items():
        widths, heights = zip(*sizes, strict=True)
        ranges = (f"{min(values)} to {max(values)}" for values in (widths, heights))
        lines.append(f"| {folder} | {len(sizes)} | {len(set(sizes))} | {' | '.join(ranges)} |")
    return "\n".join(lines)


def labels_figure(manifest: Manifest) -> Image.Image:
    """Return the number of good and of anomalous images in each split as bars."""
    figure, (axis,) = new_axes(1, (7, 3.2))
    counts: Mapping[str, Mapping[str, int]] = manifest.protocol.counts
    for shift, label, colour in ((-0.2, "good", GOOD), (0.2, "anomalous", BAD)):
        bars = axis.bar(np.arange(len(SPLITS)) + shift, [counts[split][label] for split in SPLITS], 0.38,
                        color=colour, label=label)  # fmt: skip
        axis.bar_label(bars)
    axis.set_xticks(range(len(SPLITS)), SPLITS)
    axis.set(ylabel="images", title=f"{manifest.name}: labels")
    axis.legend(frameon=False)
    return rendered(figure)


def samples_figure(manifest: Manifest, split: str, label: int, count: int = 8, seed: int = 42) -> Image.Image:
    """Return randomly drawn images of one split and label, 0 good or 1 anomalous, each with its size.

    Raises:
        InputError: There are no such images.
    """
    entries = [entry for entry in manifest.split(split) if entry.label == label]
    if not entries:
        raise InputError(f"{manifest.name} has no {'anomalous' if label else 'good'} images in {split}.")
    chosen = np.random.default_rng(seed).permutation(len(entries))[:count]
    figure, axes = new_axes(len(chosen), (1.7 * len(chosen), 1.9))
    for axis, place in zip(axes, chosen, strict=True):
        axis.imshow(as_uint8(read_image(manifest.absolute(entries[place]))))
        axis.set_title(f"{entries[place].width} x {entries[place].height}", fontsize=9)
        axis.set_axis_off()
    figure.suptitle(f"{split}: {entries[0].defect}")
    return rendered(figure)
