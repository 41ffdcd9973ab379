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
# # Review what was flagged, and train again
#
# The loop of daily use: look at what a run called anomalous, say what it really is, and train again with the images that you confirmed as good. The test images stay the same, so old and new can be compared.
#
# `RUN` is made by the first training cell of `training_code/patchcore.ipynb`; `IMAGES` are the new photographs. Here a second draw of the built-in sample stands in for them. **Your own images:** replace both by your run and your folder, and the model of the cell *Train again* by your run's.

# %%
from defectlab import Detector, make_sample

RUN = "results/Patchcore/coins/efficientnet_lite0_blocks.2-blocks.4_0.01_3"
IMAGES = "data/coins_new/test"
if IMAGES == "data/coins_new/test":
    print("New images:", make_sample("coins", "data/coins_new", seed=7, exist_ok=True))
detector = Detector.load(RUN)

# %% [markdown]
# ## What was called anomalous
#
# The twenty highest scores. You should see how many of all were flagged, and the pictures of the first six with what was found.

# %%
from defectlab.inference.figures import prediction_panel

every = sorted(detector.predict(IMAGES), key=lambda prediction: -prediction.score)
shown = every[:20]
print(f"{sum(item.label == 1 for item in every)} of {len(every)} images are above the threshold")
prediction_panel(detector, shown[:6])

# %% [markdown]
# ## Your verdicts
#
# Write `good`, `anomalous` or `unsure` beside a file's name or path, as in `{"017.png": "good", "023.png": "anomalous"}`. Nobody else decides: an image without a verdict stays without. Only the built-in sample's folders know the answer, so there they speak for you. `data/verdicts.csv` grows from day to day (those on the sample have a file of their own), a later verdict replaces an earlier one, and you may edit it in a spreadsheet. You should see the twenty images and the verdict on each.

# %%
import pandas as pd

from defectlab.inference.review import sample_verdicts, verdicts_on, write_verdicts

verdicts = {}  # yours
known = sample_verdicts(shown)
VERDICTS = "data/verdicts_on_the_sample.csv" if known else "data/verdicts.csv"
write_verdicts(every, known | verdicts, VERDICTS)
rows = [(item.image_path, item.score, item.label) for item in shown]
pd.DataFrame(rows, columns=["image", "score", "label"]).assign(verdict=verdicts_on(shown, VERDICTS))

# %% [markdown]
# ## Train again
#
# `ReviewedFolder` is the run's own manifest with the confirmed good images added to training: a new manifest, with the old validation and test images. An image that is among these is refused. You should see how many were added, then the metrics; where no image is confirmed as good yet, that, and the cells below have nothing to show either.

# %%
from defectlab import Engine, Patchcore, load_backbone
from defectlab.inference.review import ReviewedFolder, confirmed

new, good = None, confirmed(VERDICTS)
print(f"{len(good)} images are confirmed as good" + ("" if good else ": there is nothing to train again with"))
if good:
    datamodule = ReviewedFolder(RUN, good)
    backbone = load_backbone("efficientnet_lite0")
    model = Patchcore(backbone=backbone, layers=["blocks.2", "blocks.4"], coreset_sampling_ratio=0.01, num_neighbors=3)
    Engine().train(model=model, datamodule=datamodule)
    new = model.run_folder

# %% [markdown]
# ## Or add them
#
# PaDiM, PatchCore and SubspaceAD take more good images without training on the earlier ones again, as a new run that names the old one. PaDiM and SubspaceAD become what a training on all gives; PatchCore keeps its bank and lets patches of the new images join it. `ADD = True` does it; you should see how many images were added, then the metrics on the old test images.

# %%
ADD = False
if good and ADD:
    results = Engine().add_images(RUN, good)

# %% [markdown]
# ## Old against new
#
# Both runs on the same test images, by a paired test: "tied" where chance explains the difference. A few confirmed images rarely move the test metrics; what they should move is the false alarms on images like them. Where there are fewer than two test images of a kind, the cell says that there is nothing to test.

# %%
from defectlab import InputError, Run
from defectlab.results.comparison.paired_test import compare_runs
from defectlab.visualization.terminal import comparison_table

if new:
    try:
        comparison_table(compare_runs([Run.open(RUN), Run.open(new)]))
    except InputError as error:
        print(error)

# %% [markdown]
# On the images that were reviewed: how many good ones each run flags, and how many anomalous ones it catches. Those confirmed as good are training images of the new run, so its first number is no promise for the next day.

# %%
reviewed = [item.image_path for item, verdict in zip(every, verdicts_on(every, VERDICTS), strict=True) if verdict]
rows = []
for name, folder in (("old", RUN), ("new", new)):
    found = Detector.load(folder).predict(reviewed) if folder and reviewed else []
    pairs = zip(found, verdicts_on(found, VERDICTS), strict=True)
    flagged = [verdict for item, verdict in pairs if item.label == 1]
    rows.append((name, flagged.count("good"), flagged.count("anomalous")))
pd.DataFrame(rows if new else rows[:1], columns=["run", "good ones flagged", "anomalous ones caught"])
