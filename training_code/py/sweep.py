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
# # Sweeps: many configurations at little more than the price of a few
#
# A sweep runs every combination of some options and does the work they have in common once: one pass through the backbone for all layers, one coreset order for all ratios, one search for all numbers of neighbours, one Gaussian for all numbers of features. Each configuration ends with its own record, scores and row in `models_comparing.xlsx`, as if it had been trained alone.
#
# A sweep that was interrupted goes on where it was when its cell is run again; finished configurations are not done twice.

# %% [markdown]
# The next cell makes the built-in sample `data/coins` where it is absent. **Your own images:** find and replace `data/coins` by your folder.

# %%
from defectlab import make_sample

print("Images:", make_sample("coins", "data/coins", exist_ok=True))

# %% [markdown]
# ## The plan
#
# `grid` has a mapping for each model, so that options of one model stay with it. A list is choices; an option that is a list itself, such as `model.layers`, takes a list of lists; `{"from": 10, "to": 50, "step": 10}` is a range. You should see what would be computed, how many configurations use it, and what it costs; nothing is computed yet.

# %%
from defectlab import sweep

settings = {
    "name": "first",
    "data": {"root": "data/coins", "num_workers": 2},
    "backbone": {"name": "efficientnet_lite0"},
    "grid": [
        {"model.name": "patchcore", "model.coreset_sampling_ratio": [0.01, 0.1], "model.num_neighbors": [1, 5, 9]},
        {"model.name": "padim", "model.n_features": {"from": 50, "to": 170, "step": 40}},
    ],
}
planned = sweep(settings, plan_only=True)

# %% [markdown]
# ## The run
#
# A table shows the state meanwhile; below the cell you see all configurations, best first on the test images. That order is for reading: the next cell chooses.

# %%
result = sweep(settings)

# %% [markdown]
# ## The best, and its checkpoint
#
# Chosen on the validation images, never on the test images; equal ones are told apart by their pixels. Small sweeps keep all checkpoints; of large ones `refit` makes the one you want, from the cached features, with the sweep's own scores. You should see the file and scores of a few images.

# %%
from defectlab import Detector

best = result.best()
again = sweep(settings, refit=["BEST"])
print("Best:", best.folder.name, best.checkpoint.name)
images = [row.image_path for row in best.scores("test")][:3]
for found in Detector.load(best.folder).predict(images):
    print(found.image_path, round(found.score, 4), found.label)

# %% [markdown]
# ## Other options over the same settings
#
# Nothing of the first sweep is done again: one more number of neighbours needs only its own scores, metrics and row.

# %%
more = sweep(settings, overrides={"model.name": "patchcore", "model.num_neighbors": [1, 3, 5, 9]})

# %% [markdown]
# ## Models with epochs
#
# FeatCAE and CFlow are trained one by one, but on the cached features: no image is read and no backbone runs while they train. `seeds` runs each configuration with several; `datasets` several folders side by side (`configs/sweep_mvtec.yaml`).

# %%
from defectlab import sweep

trained = sweep(
    {
        "name": "featcae",
        "data": {"root": "data/coins", "num_workers": 2, "train_batch_size": 4},
        "backbone": {"name": "efficientnet_lite0"},
        "trainer": {"max_epochs": 5},
        "grid": [{"model.name": "featcae", "model.layers": [["blocks.2"], ["blocks.4"]], "model.latent_dim": [25, 50]}],
    }
)

# %% [markdown]
# ## How many good images do I need?
#
# Each model is fitted on 1, 2, 4 and 8 of the training images too, five draws of each, from the features that are there. You should see image and pixel AUROC with intervals, and a ring where more images no longer help; the text above says so, or why it cannot be told. Ten draws are the default; `docs/data.md` says how to read the intervals.

# %%
from defectlab import sweep
from defectlab.visualization.k_shots import k_shots_picture

few = {
    "name": "few_images",
    "data": {"root": "data/coins", "num_workers": 2, "k_shots": [1, 2, 4, 8, "all"], "k_shot_draws": 5},
    "backbone": {"name": "efficientnet_lite0"},
    "grid": [{"model.name": "patchcore", "model.coreset_sampling_ratio": 0.01}, {"model.name": "subspace"}],
}
k_shots_picture(sweep(few).runs)

# %% [markdown]
# ## The same from a terminal
#
# A file holds the same settings; what is typed wins over it, and commas are choices:
#
#     .venv/bin/defectlab sweep --config configs/sweep_40.yaml --data.root data/bottle --plan
#     .venv/bin/defectlab sweep --config configs/sweep_40.yaml --model.num_neighbors 1,3 --refit BEST
#
# The cache lies in `.cache/features`: `.venv/bin/defectlab cache list`, `cache clear`.
