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
# # Score images with a trained model
#
# From a run to scores, labels, heat maps and masks. `RUN` is any run folder; the one below is made by the first training cell of `training_code/patchcore.ipynb`. Where it is absent the next cell says which runs there are. `IMAGES` is a file, a folder, a glob or a list; relative paths start at the project root.

# %%
from defectlab import Detector

RUN = "results/Patchcore/coins/efficientnet_lite0_blocks.2-blocks.4_0.01_3"
IMAGES = "data/coins/test"
detector = Detector.load(RUN)
print(f"anomalous: image score above {detector.image_threshold}, map above {detector.pixel_threshold}")

# %% [markdown]
# ## Scores and labels
#
# The most anomalous images come first. Label 1 is anomalous, 0 is good. Scores are raw: comparable within this run, not between runs.

# %%
import pandas as pd

found = sorted(detector.predict(IMAGES), key=lambda prediction: -prediction.score)
table = pd.DataFrame([(item.image_path, item.score, item.label) for item in found], columns=["image", "score", "label"])
print(f"{len(table)} images, {(table.label == 1).sum()} anomalous")
table.head(10)

# %% [markdown]
# ## Heat maps and masks, here
#
# The highest score, the one in the middle and the lowest: image, map, overlay and the outline of the mask. All maps share one scale, the range of the run's validation maps, so pictures can be compared.

# %%
from defectlab.inference.figures import prediction_panel

prediction_panel(detector, [found[0], found[len(found) // 2], found[-1]])

# %% [markdown]
# ## Heat maps and masks, as files
#
# `scores.csv`, `heatmaps/` and `masks/` (255 is anomalous) in one folder. The cell shows the first lines of the table it wrote.

# %%
from defectlab import predict_to_folder

written = predict_to_folder(RUN, IMAGES, "predictions/coins", heatmaps=True, masks=True)
print("Written:", written.parent, *sorted(path.name for path in written.parent.iterdir()))
pd.read_csv(written).head(3)

# %% [markdown]
# ## anomalib's way
#
# `engine.predict` with a checkpoint's path gives anomalib's batches: `image_path`, `pred_score`, `anomaly_map`, `pred_label`, `pred_mask`. `datamodule=Folder(...)` in place of `data_path` takes the test images of a data set; the scores are those of the cells above.

# %%
from defectlab import Engine

batches = Engine().predict(data_path=IMAGES, ckpt_path=f"{RUN}/weights/lightning/model.ckpt")
first = batches[0]
print(f"{len(batches)} batches, the first with maps of shape {tuple(first.anomaly_map.shape)}")
rows = zip(first.image_path, first.pred_score.tolist(), first.pred_label.tolist(), strict=True)
pd.DataFrame(rows, columns=["image_path", "pred_score", "pred_label"])
