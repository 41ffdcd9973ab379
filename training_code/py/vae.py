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
# # Train three variational autoencoders
#
# One cell, one experiment. A variational autoencoder learns to rebuild good images through a narrow latent vector; what it never saw it rebuilds badly. An image's score is its loss (summed squared error plus divergence of the latent posterior), rebuilt from the posterior's mean, so that no decision depends on chance; the map is the squared error. There is no backbone.
#
# The threshold lies midway between the mean losses of good and of anomalous validation images (`mean_of_means`); the share of anomalous test images above it is TPR, the share of good ones below it TNR. Both validation losses are on record for every validated epoch.
#
# Cells depend on nothing but the first one; run any of them, in any order, again and again: the same cell gives the same numbers and replaces its own run.

# %% [markdown]
# The next cell makes the built-in sample `data/wells` where it is absent; a folder that is there is left as it is. It shows small metal wells in sand, some with spilled metal.
#
# **Your own images:** the same layout is `train/` (good), `proliv/` (spills, which validate), `test/imgs/` with `test/test_annotation.txt`, a line "name label" for each image, 1 for a spill. `n_val_good` good images are taken out of training to validate beside the spills: 512, at most a fifth, unless you say otherwise. Any other layout works too.

# %%
from defectlab import make_sample

print("Images:", make_sample("wells", "data/wells", exist_ok=True))

# %% [markdown]
# ## What is there
#
# How many images of each kind are in each split, and how large they are: wells are cut out of larger photographs, so hardly two sizes are the same. The models see all of them at 40 x 72 pixels.

# %%
from IPython.display import Markdown, display

from defectlab import Folder
from defectlab.visualization.dataset import counts_table, size_table

manifest = Folder(root="data/wells").manifest
display(Markdown(counts_table(manifest)))
display(Markdown(size_table(manifest)))

# %% [markdown]
# The labels as bars, and a few images of each kind. Look for yourself: which spills would you miss?

# %%
from IPython.display import display

from defectlab import Folder
from defectlab.visualization.dataset import labels_figure, samples_figure

manifest = Folder(root="data/wells").manifest
display(labels_figure(manifest))
for split, label in (("train", 0), ("validation", 1), ("test", 0), ("test", 1)):
    display(samples_figure(manifest, split, label, count=8, seed=42))

# %% [markdown]
# ## Fully connected
#
# 89.9 million weights, most of them in the first and the last layer; its checkpoint takes a third of a gigabyte (`keep_checkpoint="all"` adds the optimiser's state, two thirds more). You should see a falling training loss, then a table of metrics. Its validation losses swing from epoch to epoch, so the epoch with the smallest one of good images is kept.

# %%
from defectlab import Engine, Folder, LinearVae

datamodule = Folder(root="data/wells", train_batch_size=32, eval_batch_size=64, num_workers=2, seed=42)
model = LinearVae(latent_dim=128, lr=1e-3)
engine = Engine(max_epochs=120)
engine.fit(model=model, datamodule=datamodule)
results = engine.test(model=model, datamodule=datamodule)

# %% [markdown]
# ## Small and convolutional
#
# 2.35 million weights. Each epoch is cheap, so it gets more of them.

# %%
from defectlab import Engine, Folder, SmallConvVae

datamodule = Folder(root="data/wells", train_batch_size=32, eval_batch_size=64, num_workers=2, seed=42)
model = SmallConvVae(latent_dim=128, lr=3e-4)
engine = Engine(max_epochs=144, check_val_every_n_epoch=4)
engine.fit(model=model, datamodule=datamodule)
results = engine.test(model=model, datamodule=datamodule)

# %% [markdown]
# ## Larger and convolutional
#
# 11.8 million weights, one more convolution on each side. `monitor` keeps the epoch with the smallest loss of good validation images; `patience` ends the training once that loss has not fallen in so many validations.
#
# `Engine(callbacks=[KeepEpochs(10)])`, from `defectlab.engine.checkpoints`, would keep every tenth epoch and the last as well, as `big_conv_vae_128_100_10.ckpt` and so on in the run's `weights/epochs`; `Detector.load` takes each of them.

# %%
from defectlab import BigConvVae, Engine, Folder

datamodule = Folder(root="data/wells", train_batch_size=32, eval_batch_size=64, num_workers=2, seed=42)
model = BigConvVae(latent_dim=128, lr=3e-4)
engine = Engine(max_epochs=100, check_val_every_n_epoch=2, monitor="val_good_loss", patience=8)
engine.fit(model=model, datamodule=datamodule)
results = engine.test(model=model, datamodule=datamodule)

# %% [markdown]
# ## The experiments side by side
#
# Type, size, epochs, learning rate, threshold, and what it came to. With a hundred spills in the test, two rates that differ by less than 0.1 may well be equal: `training_code/compare.ipynb` tests that.

# %%
from pathlib import Path

from IPython.display import Markdown, display

from defectlab import Run
from defectlab.utils import paths
from defectlab.visualization.charts import metric_bars
from defectlab.visualization.markdown import experiment_table

names = ("LinearVae", "SmallConvVae", "BigConvVae")
runs = [Run.open(folder) for name in names for folder in Path(paths.results_dir()).glob(f"{name}/wells/*/")]
display(Markdown(experiment_table(runs)))
display(metric_bars(runs, ["image_TPR", "image_TNR"]))

# %% [markdown]
# ## Their curves
#
# Losses of training, of good and of anomalous validation images. Good validation images should follow the training, anomalous ones should stay above; where the two validation curves run together the model tells nothing apart.

# %%
from pathlib import Path

from IPython.display import display

from defectlab import Run
from defectlab.utils import paths
from defectlab.visualization.charts import training_figure

for name in ("LinearVae", "SmallConvVae", "BigConvVae"):
    for folder in Path(paths.results_dir()).glob(f"{name}/wells/*/"):
        display(training_figure(Run.open(folder)))

# %% [markdown]
# ## Reconstructions
#
# Above each image as the model sees it, below what it makes of it, with the loss and the verdict. A spill should be missing from its reconstruction: that is what raises the loss.

# %%
from pathlib import Path

from IPython.display import display

from defectlab import Detector, Run
from defectlab.inference.reconstruction import reconstruction_figure
from defectlab.utils import paths

for name in ("LinearVae", "SmallConvVae", "BigConvVae"):
    for folder in Path(paths.results_dir()).glob(f"{name}/wells/*/"):
        detector, rows = Detector.load(folder), Run.open(folder).scores("test")
        for label, title in ((0, "good"), (1, "anomalous")):
            files = [row.image_path for row in rows if row.label == label][:8]
            display(reconstruction_figure(detector, files, f"{name}, {title}"))

# %% [markdown]
# ## Images out of noise
#
# The decoder fed with random latent vectors. They should look like wells, a little blurred, none of them with a spill.

# %%
from pathlib import Path

from IPython.display import display

from defectlab import Detector
from defectlab.inference.reconstruction import generated_figure
from defectlab.utils import paths

for name in ("LinearVae", "SmallConvVae", "BigConvVae"):
    for folder in Path(paths.results_dir()).glob(f"{name}/wells/*/"):
        print(name)
        display(generated_figure(Detector.load(folder), count=16, seed=42))

# %% [markdown]
# ## Weights & Biases
#
# A copy of a run's losses and rates, written offline into the run's folder; `wandb sync` sends it when you want to. It needs the package `wandb`; without it this cell says so, and the notebook goes on. Batch losses, epoch losses, `val proliv loss (epoch)`, `val not proliv loss (epoch)`, `TPR` and `TNR` are there, the step being the number of images seen.

# %% tags=["raises-exception"]
from defectlab import Engine, Folder, SmallConvVae
from defectlab.engine.trackers.wandb_tracker import WandbLog

datamodule = Folder(root="data/wells", train_batch_size=32, eval_batch_size=64, num_workers=2, seed=42)
model = SmallConvVae(latent_dim=64, lr=3e-4)
engine = Engine(max_epochs=2, callbacks=[WandbLog("wells")])
results = engine.train(model=model, datamodule=datamodule)
