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
# # From your own photographs to a trained detector
#
# Good images are enough to train; a few bad ones, best with masks, are needed to say how well it works. The next cell makes the built-in sample `data/coins` where it is absent. **Your own images:** put them under `data/`, set `ROOT`, and leave the rest as it is.
#
# `Folder` knows these layouts by itself: MVTec AD's (`train/good`, `test/good`, `test/<defect>`, `ground_truth/<defect>`), good / bad (`train/good`, `test/good`, `test/bad`), and flat (`good`, `bad`, `masks`). Any other is named by its directories, as the cell before the training shows.

# %%
from defectlab import make_sample

ROOT = "data/coins"
print("Images:", make_sample("coins", ROOT, exist_ok=True))

# %% [markdown]
# ## Check them first
#
# What was found, how it will be split, and every problem at once: unreadable files, masks of other sizes, copies of one picture in training and test. You should see no problem; where there is one, the text says what to do.

# %%
from defectlab.data.manifest.check import check
from defectlab.utils.paths import resolve

print(check(resolve(ROOT)).text)

# %% [markdown]
# ## Look at them
#
# Counts by split, sizes, and a few images of each kind. Half of the test images choose the threshold (validation); the metrics are of the other half.

# %%
from defectlab import Folder
from defectlab.visualization.dataset import counts_table, samples_figure, size_table

manifest = Folder(root=ROOT).manifest
print(counts_table(manifest), size_table(manifest), sep="\n\n")
samples_figure(manifest, "train", 0, count=4)

# %% [markdown]
# ## Train
#
# PatchCore is a good first choice: one pass, no epochs, few images needed (how few: `sweep.ipynb`). Folders of another layout are named: `Folder(root=ROOT, normal_dir="ok", abnormal_dir=["scratch", "hole"], mask_dir=["masks/scratch", "masks/hole"])`. You should see the metrics, the place among your runs, and pictures.

# %%
from defectlab import Engine, Patchcore, load_backbone

datamodule = Folder(root=ROOT, train_batch_size=10, eval_batch_size=10, num_workers=2, seed=42)
backbone = load_backbone("efficientnet_lite0")
model = Patchcore(backbone=backbone, layers=["blocks.2", "blocks.4"], coreset_sampling_ratio=0.01, num_neighbors=3)
results = Engine().train(model=model, datamodule=datamodule)

# %% [markdown]
# ## What the threshold does
#
# The run's own threshold and what came of it: how many defects were caught, how many good parts were flagged. `inference_code/set_the_threshold.ipynb` has other rules, such as a false-alarm rate that you choose.

# %%
from defectlab import Run

run = Run.open(model.run_folder)
print(run.record["thresholds"]["image"]["reason"])
print({name: run.record["metrics"][name] for name in ("image_TPR", "image_TNR", "image_AUROC", "pixel_AUPRO")})

# %% [markdown]
# ## Everything as files
#
# The validation and test images, with heat maps on one fixed scale, segmentations, `scores.csv`, a JSON for other programs and a histogram; pictures of the wrong decisions only. You should see the folder's content. Next: `inference_code/review.ipynb`.

# %%
from defectlab import report_predictions

images = [row.image_path for row in run.scores()]
written = report_predictions(model.run_folder, images, "predictions/your_own_data", only_wrong=True)
print(*sorted(path.name for path in written.parent.iterdir()))
