# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py//py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The backbone that comes with DefectLab
#
# `defectlab_resnet18` is a ResNet-18 up to layer3 that was trained from nothing: on images made from formulas and on a
# few free photographs. This notebook shows what it saw, how it is trained, and what its first layer looks for. It
# runs in about a minute, without network. For serious work bring ImageNet weights: `defectlab weights get resnet18`.

# %% [markdown]
# ## The images
#
# Nine kinds of picture, one a row. You should see clouds and brushed metal, overlapping leaves, stripes, weaves,
# cells, lit bumps, fractals, quiet surfaces with scratches, and parts on a table.

# %%
import matplotlib.pyplot as plt
import numpy as np

from defectlab.data.samples.procedural import KINDS, procedural_image

rows = [np.concatenate([procedural_image(kind, i, size=128) for i in range(6)], axis=1) for kind in KINDS]
plt.figure(figsize=(9, 13.5))
plt.imshow(np.concatenate(rows))
plt.yticks(64 + 128 * np.arange(len(KINDS)), list(KINDS))
plt.xticks([])
plt.show()

# %% [markdown]
# ## The photographs
#
# They come with scikit-image; none is used by a built-in sample. You should see each with its licence. Large ones are
# cut into sheets of 256 pixels, and each cell of 64 pixels is a class of its own.

# %%
from defectlab.backbones.pretraining.images import SOURCES, load_source

figure, axes = plt.subplots(1, 7, figsize=(16, 3))
for axis, source in zip(axes.flat, SOURCES, strict=True):
    axis.imshow(load_source(source))
    axis.set_title(f"{source.file}\n{source.licence}", fontsize=8)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## What the network sees, and what it must say
#
# Crops are turned, scaled and re-coloured; pieces of other crops and defects are put in. At every position of layer2
# and layer3 the network names the sheet that is shown there, and the defect. You should see, below each crop, its
# sheets and then its defects in colour: a pasted piece has another colour than its surroundings.

# %%
import torch

from defectlab.backbones.pretraining.crops import draw_crops
from defectlab.backbones.pretraining.images import make_pretraining_images
from defectlab.backbones.registry import IMAGENET_MEAN, IMAGENET_STD

sheets = make_pretraining_images(2)
crops = draw_crops(sheets, 8, 96, colour=0.4, draws=torch.Generator().manual_seed(1))
pictures = crops.images.permute(0, 2, 3, 1) * torch.tensor(IMAGENET_STD) + torch.tensor(IMAGENET_MEAN)
print(len(sheets.images), "sheets,", sheets.classes, "classes; labels of layer2", tuple(crops.fine.shape))

# %% [markdown]
# The same crops as pictures: the pixels, the sheets, the defects (dark: none).

# %%
figure, axes = plt.subplots(3, 8, figsize=(14, 6))
for column, picture, labels, defects in zip(axes.T, pictures, crops.fine, crops.fine_defects, strict=True):
    column[0].imshow(picture.clamp(0, 1))
    column[1].imshow(labels % 20, cmap="tab20", vmin=0, vmax=19)
    column[2].imshow(defects.clamp(min=-1), vmin=-1, vmax=6)
    for axis in column:
        axis.axis("off")
plt.show()

# %% [markdown]
# ## A shortened training
#
# Ten steps on a tenth of the images. You should see two equal checksums: the same recipe gives the same weights.
# `make backbone` runs the whole recipe, and continues where it was ended.

# %%
import tempfile
from pathlib import Path

from defectlab.backbones.backbone import tensors_sha256
from defectlab.backbones.pretraining.config import Recipe
from defectlab.backbones.pretraining.train import pretrain

short = Recipe(small_steps=6, large_steps=4, small_batch=8, large_batch=8, per_kind=1, warm_up=2, settling=1)
for _ in range(2):
    with tempfile.TemporaryDirectory() as folder:
        print(tensors_sha256(pretrain(short, Path(folder))))

# %% [markdown]
# ## The whole training
#
# The numbers of the recipe that made the shipped file.

# %%
from dataclasses import asdict

asdict(Recipe())

# %% [markdown]
# ## Its curve
#
# You should see the loss fall from about 18 to where the weights were taken, with a step where the crops become
# larger and the rate begins to fall.

# %%
import json
from importlib.resources import files

lines = (files("defectlab.backbones") / "defectlab_resnet18_curve.jsonl").read_text().splitlines()
curve = [json.loads(line) for line in lines]
plt.plot([row["step"] for row in curve], [row["loss"] for row in curve])
plt.xlabel("step")
plt.ylabel("loss, mean of 50 steps")
plt.show()

# %% [markdown]
# ## The first layer
#
# You should see 64 filters of 7 x 7 pixels: spots of colour, some edges and blobs, and much noise that a longer
# training would smooth.

# %%
from defectlab import load_backbone

backbone = load_backbone("defectlab_resnet18")
filters = backbone.network.conv1.weight.permute(0, 2, 3, 1)
low, high = filters.amin((1, 2, 3), keepdim=True), filters.amax((1, 2, 3), keepdim=True)
figure, axes = plt.subplots(4, 16, figsize=(14, 4))
for axis, shown in zip(axes.flat, (filters - low) / (high - low), strict=True):
    axis.imshow(shown)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## What it is worth
#
# `weights/README.md` compares it with random and ImageNet weights. Here is what its layer2 makes of a pasted piece:
# you should see the distance of each position to the mean of its crop, larger on what does not belong.

# %%
from defectlab.backbones.extractor import FeatureExtractor

features = FeatureExtractor(backbone, ["layer2"])(crops.images)["layer2"]
distance = (features - features.mean((2, 3), keepdim=True)).norm(dim=1)
figure, axes = plt.subplots(2, 8, figsize=(14, 4))
for above, below, picture, map_ in zip(*axes, pictures, distance, strict=True):
    above.imshow(picture.clamp(0, 1))
    below.imshow(map_)
    above.axis("off")
    below.axis("off")
plt.show()
