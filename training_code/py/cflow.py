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
# # Train CFlow
#
# One cell, one training. CFlow trains a normalising flow for each layer, which learns how likely a patch's features are at its position; a part is anomalous where they are unlikely. It trains for many epochs, so a GPU helps a lot; the bar shows the time that remains.
#
# `fiber_batch_size` is the number of patches an optimiser step sees. anomalib's 64 is made for GPUs; 1024 takes a sixteenth of the steps, which is what makes a CPU bearable. Set it to 64 to compare with published numbers. Validation images choose the thresholds, once, after the last epoch (`check_val_every_n_epoch`): scoring them after each of the thirty would add a third to the time and change nothing.
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
# EfficientNet-Lite0 with ImageNet weights, three layers at strides 4, 8 and 16, 30 epochs. Its features are some twenty times as large as a ResNet's; `scale_features` standardises them by the good images, so that the flows need not learn that first. You should see a falling loss, one line for the fit and a table of four metrics.

# %% tags=["raises-exception"]
from defectlab import Cflow, Engine, Folder, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=8, num_workers=2, seed=42)
backbone = load_backbone("efficientnet_lite0")
model = Cflow(
    backbone=backbone, layers=["blocks.1", "blocks.2", "blocks.4"], pre_trained=False, fiber_batch_size=1024,
    scale_features=True,
)  # fmt: skip
engine = Engine(max_epochs=30, check_val_every_n_epoch=30)
engine.fit(model=model, datamodule=datamodule)
results = engine.test(model=model, datamodule=datamodule)

# %% [markdown]
# ## ResNet-18
#
# The same with ResNet-18, by `engine.train`, which is `fit` and `test` in one call.

# %% tags=["raises-exception"]
from defectlab import Cflow, Engine, Folder, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=8, num_workers=2, seed=42)
backbone = load_backbone("resnet18")
model = Cflow(backbone=backbone, layers=["layer1", "layer2", "layer3"], pre_trained=False, fiber_batch_size=1024)
engine = Engine(max_epochs=30, check_val_every_n_epoch=30)
results = engine.train(model=model, datamodule=datamodule)

# %% [markdown]
# ## ResNet-50
#
# Four times the channels, so flows with sixteen times the weights: expect each epoch to take several times as long.

# %% tags=["raises-exception"]
from defectlab import Cflow, Engine, Folder, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=8, num_workers=2, seed=42)
backbone = load_backbone("resnet50")
model = Cflow(backbone=backbone, layers=["layer1", "layer2", "layer3"], pre_trained=False, fiber_batch_size=1024)
engine = Engine(max_epochs=30, check_val_every_n_epoch=30)
results = engine.train(model=model, datamodule=datamodule)

# %% [markdown]
# ## Wide ResNet-50-2
#
# As many channels as ResNet-50, computed by a wider network.

# %% tags=["raises-exception"]
from defectlab import Cflow, Engine, Folder, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=8, num_workers=2, seed=42)
backbone = load_backbone("wide_resnet50_2")
model = Cflow(backbone=backbone, layers=["layer1", "layer2", "layer3"], pre_trained=False, fiber_batch_size=1024)
engine = Engine(max_epochs=30, check_val_every_n_epoch=30)
results = engine.train(model=model, datamodule=datamodule)

# %% [markdown]
# ## CSPDarknet-53
#
# A timm model: its layers are called `stages`.

# %% tags=["raises-exception"]
from defectlab import Cflow, Engine, Folder, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=8, num_workers=2, seed=42)
backbone = load_backbone("cspdarknet53")
model = Cflow(backbone=backbone, layers=["stages.1", "stages.2", "stages.3"], pre_trained=False, fiber_batch_size=1024)
engine = Engine(max_epochs=30, check_val_every_n_epoch=30)
results = engine.train(model=model, datamodule=datamodule)

# %% [markdown]
# ## EfficientNet-B7
#
# `features.2`, `features.3` and `features.5` have the grids of a ResNet's layers 1 to 3, with fewer channels.

# %% tags=["raises-exception"]
from defectlab import Cflow, Engine, Folder, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=8, num_workers=2, seed=42)
backbone = load_backbone("efficientnet_b7")
model = Cflow(
    backbone=backbone, layers=["features.2", "features.3", "features.5"], pre_trained=False, fiber_batch_size=1024
)
engine = Engine(max_epochs=30, check_val_every_n_epoch=30)
results = engine.train(model=model, datamodule=datamodule)
