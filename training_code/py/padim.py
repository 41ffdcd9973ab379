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
# # Train PaDiM
#
# One cell, one training. PaDiM describes each position of the image by a Gaussian over `n_features` channels, drawn at random from those of `layers`; a part is anomalous where it is far from it. It fits in one pass.
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
# EfficientNet-Lite0 with ImageNet weights, 100 of 176 channels. `fit` trains and chooses the thresholds on validation images, `test` computes the metrics. You should see the split, one line for the fit and a table of four metrics.

# %% tags=["raises-exception"]
from defectlab import Engine, Folder, Padim, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=8, num_workers=2, seed=42)
backbone = load_backbone("efficientnet_lite0")
model = Padim(backbone=backbone, layers=["blocks.1", "blocks.2", "blocks.4"], pre_trained=False, n_features=100)
engine = Engine(max_epochs=1)
engine.fit(model=model, datamodule=datamodule)
results = engine.test(model=model, datamodule=datamodule)

# %% [markdown]
# ## ResNet-18
#
# 100 of 448 channels: the backbone and the number of channels that the PaDiM paper uses.

# %% tags=["raises-exception"]
from defectlab import Engine, Folder, Padim, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=8, num_workers=2, seed=42)
backbone = load_backbone("resnet18")
model = Padim(backbone=backbone, layers=["layer1", "layer2", "layer3"], pre_trained=False, n_features=100)
engine = Engine(max_epochs=1)
engine.fit(model=model, datamodule=datamodule)
results = engine.test(model=model, datamodule=datamodule)

# %% [markdown]
# 300 channels. `engine.train` is `fit` and `test` in one call: both ways give the same metrics. Expect a longer fit, for its cost grows with the square of `n_features`.

# %% tags=["raises-exception"]
from defectlab import Engine, Folder, Padim, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=8, num_workers=2, seed=42)
backbone = load_backbone("resnet18")
model = Padim(backbone=backbone, layers=["layer1", "layer2", "layer3"], pre_trained=False, n_features=300)
engine = Engine(max_epochs=1)
results = engine.train(model=model, datamodule=datamodule)

# %% [markdown]
# All 448 channels: nothing is drawn at random any more. Compare its pixel AUROC with the 100 and 300 above.

# %% tags=["raises-exception"]
from defectlab import Engine, Folder, Padim, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=8, num_workers=2, seed=42)
backbone = load_backbone("resnet18")
model = Padim(backbone=backbone, layers=["layer1", "layer2", "layer3"], pre_trained=False, n_features=448)
engine = Engine(max_epochs=1)
results = engine.train(model=model, datamodule=datamodule)

# %% [markdown]
# ## ResNet-50
#
# 300 of 1792 channels of a deeper network.

# %% tags=["raises-exception"]
from defectlab import Engine, Folder, Padim, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=8, num_workers=2, seed=42)
backbone = load_backbone("resnet50")
model = Padim(backbone=backbone, layers=["layer1", "layer2", "layer3"], pre_trained=False, n_features=300)
engine = Engine(max_epochs=1)
engine.fit(model=model, datamodule=datamodule)
results = engine.test(model=model, datamodule=datamodule)

# %% [markdown]
# 500 channels: 4096 positions with a 500 x 500 matrix each, so about 4 GB of memory.

# %% tags=["raises-exception"]
from defectlab import Engine, Folder, Padim, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=8, num_workers=2, seed=42)
backbone = load_backbone("resnet50")
model = Padim(backbone=backbone, layers=["layer1", "layer2", "layer3"], pre_trained=False, n_features=500)
engine = Engine(max_epochs=1)
results = engine.train(model=model, datamodule=datamodule)

# %% [markdown]
# ## Wide ResNet-50-2
#
# 500 of 1792 channels, all three layers; about 4 GB of memory too.

# %% tags=["raises-exception"]
from defectlab import Engine, Folder, Padim, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=8, num_workers=2, seed=42)
backbone = load_backbone("wide_resnet50_2")
model = Padim(backbone=backbone, layers=["layer1", "layer2", "layer3"], pre_trained=False, n_features=500)
engine = Engine(max_epochs=1)
engine.fit(model=model, datamodule=datamodule)
results = engine.test(model=model, datamodule=datamodule)

# %% [markdown]
# Without layer 3: finer features only, 300 of 768 channels. Look whether outlines in `pictures.png` become tighter.

# %% tags=["raises-exception"]
from defectlab import Engine, Folder, Padim, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=8, num_workers=2, seed=42)
backbone = load_backbone("wide_resnet50_2")
model = Padim(backbone=backbone, layers=["layer1", "layer2"], pre_trained=False, n_features=300)
engine = Engine(max_epochs=1)
results = engine.train(model=model, datamodule=datamodule)

# %% [markdown]
# Layer 2 alone. The patch grid is that of the first layer named, so maps are half as fine: the fit is four times as fast.

# %% tags=["raises-exception"]
from defectlab import Engine, Folder, Padim, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=8, num_workers=2, seed=42)
backbone = load_backbone("wide_resnet50_2")
model = Padim(backbone=backbone, layers=["layer2"], pre_trained=False, n_features=300)
engine = Engine(max_epochs=1)
results = engine.train(model=model, datamodule=datamodule)

# %% [markdown]
# Layer 1 alone: all of its 256 channels. Edges and colours, little else.

# %% tags=["raises-exception"]
from defectlab import Engine, Folder, Padim, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=8, num_workers=2, seed=42)
backbone = load_backbone("wide_resnet50_2")
model = Padim(backbone=backbone, layers=["layer1"], pre_trained=False, n_features=256)
engine = Engine(max_epochs=1)
results = engine.train(model=model, datamodule=datamodule)

# %% [markdown]
# Layers 1 and 3: the fine and the coarse without the middle.

# %% tags=["raises-exception"]
from defectlab import Engine, Folder, Padim, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=8, num_workers=2, seed=42)
backbone = load_backbone("wide_resnet50_2")
model = Padim(backbone=backbone, layers=["layer1", "layer3"], pre_trained=False, n_features=300)
engine = Engine(max_epochs=1)
results = engine.train(model=model, datamodule=datamodule)

# %% [markdown]
# ## CSPDarknet-53
#
# A timm model: its layers are called `stages`. 400 of 896 channels.

# %% tags=["raises-exception"]
from defectlab import Engine, Folder, Padim, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=8, num_workers=2, seed=42)
backbone = load_backbone("cspdarknet53")
model = Padim(backbone=backbone, layers=["stages.1", "stages.2", "stages.3"], pre_trained=False, n_features=400)
engine = Engine(max_epochs=1)
engine.fit(model=model, datamodule=datamodule)
results = engine.test(model=model, datamodule=datamodule)

# %% [markdown]
# ## EfficientNet-B7
#
# `features.3` and `features.5` have 304 channels together; all are used.

# %% tags=["raises-exception"]
from defectlab import Engine, Folder, Padim, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=8, num_workers=2, seed=42)
backbone = load_backbone("efficientnet_b7")
model = Padim(backbone=backbone, layers=["features.3", "features.5"], pre_trained=False, n_features=304)
engine = Engine(max_epochs=1)
engine.fit(model=model, datamodule=datamodule)
results = engine.test(model=model, datamodule=datamodule)

# %% [markdown]
# 1000 of the 1248 channels of three coarse layers, on a 16 x 16 grid: large matrices, few positions.

# %% tags=["raises-exception"]
from defectlab import Engine, Folder, Padim, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=8, num_workers=2, seed=42)
backbone = load_backbone("efficientnet_b7")
model = Padim(backbone=backbone, layers=["features.5", "features.6", "features.7"], pre_trained=False, n_features=1000)
engine = Engine(max_epochs=1)
results = engine.train(model=model, datamodule=datamodule)
