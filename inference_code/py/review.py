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
# `RUN` is made by the first training cell of `training_code/patchcore.ipynb`; `IMAGES` are the new photographs. Here a second draw of the built-in sample stands in for them. **Your own images:** replace both by your run and your folder.

# %%
from defectlab import Detector, make_sample

RUN = "results/Patchcore/coins/defectlab_resnet18_layer2-layer3_0.01_3"
IMAGES = "data/coins_new/test"
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
# Write `good`, `anomalous` or `unsure` beside a file's name or path. The sample's folders know the answer, so here they speak for you; with your own images the dictionary is yours, as in `{"017.png": "good", "023.png": "anomalous"}`. The CSV grows from day to day, a later verdict replaces an earlier one, and you may edit it in a spreadsheet. You should see the count of each verdict.

# %%
from pathlib import Path

import pandas as pd

from defectlab.inference.review import write_verdicts

verdicts = {item.image_path: "good" if Path(item.image_path).parent.name == "good" else "anomalous" for item in shown}
written = write_verdicts(shown, verdicts, "data/verdicts.csv")
pd.read_csv(written).verdict.value_counts()

# %% [markdown]
# ## Train again
#
# `ReviewedFolder` is the run's own manifest with the confirmed good images added to training: a new manifest, with the old validation and test images. An image that is among these is refused. You should see how many were added, then the metrics.

# %%
from defectlab import Engine, Patchcore, load_backbone
from defectlab.inference.review import ReviewedFolder, confirmed

datamodule = ReviewedFolder(RUN, confirmed("data/verdicts.csv"))
backbone = load_backbone("defectlab_resnet18")
model = Patchcore(backbone=backbone, layers=["layer2", "layer3"], coreset_sampling_ratio=0.01, num_neighbors=3)
engine = Engine()
results = engine.train(model=model, datamodule=datamodule)

# %% [markdown]
# ## Old against new
#
# Both runs on the same test images, by a paired test: "tied" where chance explains the difference. A few confirmed images rarely move the test metrics; what they should move is the false alarms on images like them.

# %%
from defectlab import Run
from defectlab.results.comparison.paired_test import compare_runs
from defectlab.visualization.terminal import comparison_table

comparison_table(compare_runs([Run.open(RUN), Run.open(model.run_folder)]))

# %% [markdown]
# On the images that were reviewed: how many good ones each run flags, and how many anomalous ones it catches. Those confirmed as good are training images of the new run, so its first number is no promise for the next day.

# %%
rows = []
for name, judge in (("old", detector), ("new", Detector.load(model.run_folder))):
    found = judge.predict([item.image_path for item in shown])
    flagged = [verdicts[item.image_path] for item in found if item.label == 1]
    rows.append((name, flagged.count("good"), flagged.count("anomalous")))
pd.DataFrame(rows, columns=["run", "good ones flagged", "anomalous ones caught"])
