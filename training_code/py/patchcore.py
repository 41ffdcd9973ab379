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
# # Train PatchCore
#
# One cell, one training. PatchCore keeps a coreset of the patches of all good images (`coreset_sampling_ratio`) in a memory bank; a part is anomalous where no kept patch is near. `num_neighbors` re-weights the image score only: two runs that differ in nothing else have equal pixel metrics.
#
# A cell whose weights are not in `weights/` stops at once, says what to run (`.venv/bin/defectlab weights get resnet50`) and leaves the others alone: *Run All* goes on past it. Cells depend on nothing but the first one; run any of them, in any order, again and again: the same cell gives the same numbers and replaces its own run.
#
# After each cell you see where the run was recorded and its metrics; the run folder has `pictures.png`, and `models_comparing.xlsx` has all runs side by side.

# %% [markdown]
# The next cell makes the built-in sample `data/coins` where it is absent; a folder that is there is left as it is.
#
# **Your own images:** find and replace `data/coins` by your folder, such as `data/bottle`, in the whole notebook. A folder in another layout than `train/good`, `test/good`, `test/<defect>`, `ground_truth/<defect>` is named by its directories: `Folder(root="data/bottle", normal_dir="ok", abnormal_dir="bad", mask_dir="masks", ...)`. Relative paths start at the project root, wherever the notebook lies.

# %%
from defectlab import make_sample

print("Images:", make_sample("coins", "data/coins", exist_ok=True))

# %% [markdown]
# ## The weights that come with the project
#
# EfficientNet-Lite0 with ImageNet weights, 1 % of the patches, 3 neighbours. You should see the size of the coreset, one line for the fit and a table of four metrics. `inference_code/` uses this run.

# %% tags=["raises-exception"]
from defectlab import Engine, Folder, Patchcore, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=10, num_workers=2, seed=42)
backbone = load_backbone("efficientnet_lite0")
model = Patchcore(
    backbone=backbone, layers=["blocks.2", "blocks.4"], pre_trained=False, coreset_sampling_ratio=0.01, num_neighbors=3
)
engine = Engine(max_epochs=1)
engine.fit(model=model, datamodule=datamodule)
results = engine.test(model=model, datamodule=datamodule)

# %% [markdown]
# 10 % of the patches, 9 neighbours, by `engine.train`, which is `fit` and `test` in one call. Ten times the memory bank: see what it gains.

# %% tags=["raises-exception"]
from defectlab import Engine, Folder, Patchcore, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=10, num_workers=2, seed=42)
backbone = load_backbone("efficientnet_lite0")
model = Patchcore(
    backbone=backbone, layers=["blocks.2", "blocks.4"], pre_trained=False, coreset_sampling_ratio=0.1, num_neighbors=9
)
engine = Engine(max_epochs=1)
results = engine.train(model=model, datamodule=datamodule)

# %% [markdown]
# ## ResNet-18
#
# The first cell with ResNet-18.

# %% tags=["raises-exception"]
from defectlab import Engine, Folder, Patchcore, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=10, num_workers=2, seed=42)
backbone = load_backbone("resnet18")
model = Patchcore(
    backbone=backbone, layers=["layer2", "layer3"], pre_trained=False, coreset_sampling_ratio=0.01, num_neighbors=3
)
engine = Engine(max_epochs=1)
engine.fit(model=model, datamodule=datamodule)
results = engine.test(model=model, datamodule=datamodule)

# %% [markdown]
# 5 % of the patches, 5 neighbours.

# %% tags=["raises-exception"]
from defectlab import Engine, Folder, Patchcore, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=10, num_workers=2, seed=42)
backbone = load_backbone("resnet18")
model = Patchcore(
    backbone=backbone, layers=["layer2", "layer3"], pre_trained=False, coreset_sampling_ratio=0.05, num_neighbors=5
)
engine = Engine(max_epochs=1)
results = engine.train(model=model, datamodule=datamodule)

# %% [markdown]
# ## ResNet-50
#
# 10 %, 5 neighbours: four times as many numbers a patch as ResNet-18. The log says beforehand how long the coreset will take.

# %% tags=["raises-exception"]
from defectlab import Engine, Folder, Patchcore, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=10, num_workers=2, seed=42)
backbone = load_backbone("resnet50")
model = Patchcore(
    backbone=backbone, layers=["layer2", "layer3"], pre_trained=False, coreset_sampling_ratio=0.1, num_neighbors=5
)
engine = Engine(max_epochs=1)
engine.fit(model=model, datamodule=datamodule)
results = engine.test(model=model, datamodule=datamodule)

# %% [markdown]
# ## Wide ResNet-50-2
#
# All three layers at 5 %. The patch grid is that of layer 1, 64 x 64, so there are four times as many patches: see the estimate in the log before you go for lunch.

# %% tags=["raises-exception"]
from defectlab import Engine, Folder, Patchcore, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=10, num_workers=2, seed=42)
backbone = load_backbone("wide_resnet50_2")
model = Patchcore(
    backbone=backbone,
    layers=["layer1", "layer2", "layer3"],
    pre_trained=False,
    coreset_sampling_ratio=0.05,
    num_neighbors=5,
)
engine = Engine(max_epochs=1)
engine.fit(model=model, datamodule=datamodule)
results = engine.test(model=model, datamodule=datamodule)

# %% [markdown]
# ## CSPDarknet-53
#
# A timm model: its layers are called `stages`.

# %% tags=["raises-exception"]
from defectlab import Engine, Folder, Patchcore, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=10, num_workers=2, seed=42)
backbone = load_backbone("cspdarknet53")
model = Patchcore(
    backbone=backbone, layers=["stages.2", "stages.3"], pre_trained=False, coreset_sampling_ratio=0.01, num_neighbors=9
)
engine = Engine(max_epochs=1)
engine.fit(model=model, datamodule=datamodule)
results = engine.test(model=model, datamodule=datamodule)

# %% [markdown]
# ## EfficientNet-B7
#
# torchvision's names: `features.3` has the 32 x 32 grid of a ResNet's layer 2, `features.5` the grid of its layer 3.

# %% tags=["raises-exception"]
from defectlab import Engine, Folder, Patchcore, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=10, num_workers=2, seed=42)
backbone = load_backbone("efficientnet_b7")
model = Patchcore(
    backbone=backbone,
    layers=["features.3", "features.5"],
    pre_trained=False,
    coreset_sampling_ratio=0.01,
    num_neighbors=9,
)
engine = Engine(max_epochs=1)
engine.fit(model=model, datamodule=datamodule)
results = engine.test(model=model, datamodule=datamodule)
