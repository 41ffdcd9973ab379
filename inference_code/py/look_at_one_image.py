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
# # Look at one image
#
# Why is this image anomalous, or not? `RUN` is a PatchCore run, for the last part; the one below is made by the first training cell of `training_code/patchcore.ipynb`. Where it is absent the next cell says which runs there are. You should see the score, the threshold and the verdict.

# %%
from defectlab import Detector, Run

RUN = "results/Patchcore/coins/efficientnet_lite0_blocks.2-blocks.4_0.01_3"
IMAGE = "data/coins/test/patch/000.png"
detector = Detector.load(RUN)
(found,) = detector.predict(IMAGE)
verdict = {1: "anomalous", 0: "good", -1: "undecided"}[found.label]
print(f"{IMAGE}: score {found.score:.4g}, threshold {detector.image_threshold}: {verdict}")

# %% [markdown]
# ## The score among the validation images
#
# Each stroke is a validation image, the diamond is this one. The threshold lies where it divides good from bad best; an image close to it is worth a second look.

# %%
from defectlab.inference.figures import score_figure

score_figure(Run.open(RUN), found)

# %% [markdown]
# ## Image, map, overlay, contour
#
# The map is on the run's one scale; the green line on its colour bar is the map's threshold, the green contour is what lies above it.

# %%
from defectlab.inference.figures import image_figure

image_figure(detector, found)

# %% [markdown]
# ## The nearest good patches
#
# PatchCore compares with patches of good training images. On the left the patch of this image that is farthest from all of them, then the good patches closest to it. Where they look the same to you, the model sees something that you do not, or the good images lack variety.

# %%
from defectlab import nearest_good_patches
from defectlab.inference.figures import patches_figure

nearest = nearest_good_patches(detector, IMAGE, count=5)
patches_figure(IMAGE, nearest)

# %% [markdown]
# The same in numbers: the training image, the patch's box (left, top, right, bottom) in its pixels, the distance.

# %%
import pandas as pd

rows = [(patch.image_path.name, patch.box, patch.distance) for patch in nearest.patches]
pd.DataFrame(rows, columns=["training image", "box", "distance"])
