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
# # Train FeatCAE
#
# One cell, one training. FeatCAE trains a small autoencoder (1x1 convolutions, `latent_dim` channels in the middle) to rebuild the features of good images; a part is anomalous where they are rebuilt badly. The backbone is frozen, so features are computed once and an epoch costs no backbone. It learns good images only, and its threshold needs no defects either: three standard deviations (`threshold_k`) above the mean score of good validation images. Maps have the scores' unit, so the same number is the maps' threshold.
#
# The three outermost cells of the grid (`border`) are not looked at, neither in the score nor in the map: set `border=0` for parts that reach the image's edge. The score is the mean of the ten largest errors (`top_pixels`).
#
# A cell whose weights are not in `weights/` stops at once, says what to run (`.venv/bin/defectlab weights get resnet50`) and leaves the others alone: *Run All* goes on past it. Cells depend on nothing but the first one; run any of them, in any order, again and again: the same cell gives the same numbers and replaces its own run.

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
# EfficientNet-Lite0 with ImageNet weights, layers at strides 8 and 16, 20 epochs. You should see one line for the features, which are computed once, a falling loss, one line for the fit and a table of four metrics.

# %%
from defectlab import Engine, FeatCae, Folder, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=4, eval_batch_size=8, num_workers=2, seed=42)
backbone = load_backbone("efficientnet_lite0")
model = FeatCae(backbone=backbone, layers=["blocks.2", "blocks.4"], pre_trained=False, latent_dim=100)
engine = Engine(max_epochs=20)
engine.fit(model=model, datamodule=datamodule)
results = engine.test(model=model, datamodule=datamodule)
RUN = model.run_folder

# %% [markdown]
# ### Its curves
#
# `RUN` is the run of the cell above; any other run's folder will do. The losses of training, of good and of anomalous validation images, each the mean of an epoch. Good validation images should follow the training; where they part, it learns its images by heart. The anomalous ones should stay above.

# %%
from defectlab import Run
from defectlab.visualization.charts import training_figure

training_figure(Run.open(RUN))

# %% [markdown]
# The ROC curve of the test images, with its area; the diamond is where the threshold stands.

# %%
from defectlab.visualization.charts import roc_figure

roc_figure(Run.open(RUN))

# %% [markdown]
# ### Heat maps relative to the threshold
#
# All maps of the run share one scale on which 1.0 is the threshold, so two pictures can be compared: what is brighter than the line on the colour bar is anomalous, and the score in the title says NOK exactly where it is above 1.0. You should see the test image with the highest score.

# %%
from defectlab import Detector
from defectlab.inference.figures import relative_figure

detector = Detector.load(RUN)
rows = sorted(Run.open(RUN).scores("test"), key=lambda row: row.score)
(found,) = detector.predict(rows[-1].image_path)
relative_figure(detector, found)

# %% [markdown]
# The same for the test image with the lowest score.

# %%
(found,) = detector.predict(rows[0].image_path)
relative_figure(detector, found)

# %% [markdown]
# ## ResNet-50, the reference
#
# Layer 2 alone at 512 pixels, a fifth of the good images held out for the threshold: the settings of `configs/featcae.yaml`. From a terminal: `.venv/bin/defectlab train --config configs/featcae.yaml`.

# %% tags=["raises-exception"]
from defectlab import Engine, FeatCae, Folder, load_backbone

datamodule = Folder(
    root="data/coins", train_batch_size=4, eval_batch_size=4, val_split_mode="from_train", val_split_ratio=0.2, seed=42
)
backbone = load_backbone("resnet50")
model = FeatCae(backbone=backbone, layers=["layer2"], pre_trained=False, latent_dim=100, image_size=512)
engine = Engine(max_epochs=20)
results = engine.train(model=model, datamodule=datamodule)

# %% [markdown]
# All three layers: 3584 channels on the grid of layer 2. The autoencoder's input follows from them; its features take about seven times the room.

# %% tags=["raises-exception"]
from defectlab import Engine, FeatCae, Folder, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=4, eval_batch_size=8, num_workers=2, seed=42)
backbone = load_backbone("resnet50")
model = FeatCae(backbone=backbone, layers=["layer2", "layer3", "layer4"], pre_trained=False, latent_dim=100)
engine = Engine(max_epochs=20)
results = engine.train(model=model, datamodule=datamodule)
