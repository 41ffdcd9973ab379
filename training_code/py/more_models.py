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
# # Train other models
#
# One cell, one training. STFPM, FastFlow, CS-Flow and SubspaceAD take any backbone; DRAEM and EfficientAD have none. Nothing is downloaded: what plain anomalib fetches comes from your own folders or is generated, and the record says which.
#
# The few epochs here show that everything runs; they are far too few for good results. The papers train for hundreds of epochs, EfficientAD for 70 000 steps: take a GPU for these.
#
# Cells depend on nothing but the first one. After each you see where the run was recorded and its metrics; `models_comparing.xlsx` has all runs side by side.

# %% [markdown]
# The next cell makes the built-in sample `data/coins` where it is absent; a folder that is there is left as it is. **Your own images:** replace `data/coins` by your folder in the whole notebook.

# %%
from defectlab import make_sample

print("Images:", make_sample("coins", "data/coins", exist_ok=True))

# %% [markdown]
# ## STFPM
#
# A student learns what the backbone, its teacher, says of good images; where they differ is anomalous. You should see a falling loss.

# %%
from defectlab import Engine, Folder, Stfpm, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=8, num_workers=2, seed=42)
backbone = load_backbone("efficientnet_lite0")
model = Stfpm(backbone=backbone, layers=["blocks.1", "blocks.2", "blocks.4"], image_size=128)
results = Engine(max_epochs=2, check_val_every_n_epoch=2).train(model=model, datamodule=datamodule)

# %% [markdown]
# ## FastFlow
#
# A normalising flow over each layer's whole map. `hidden_ratio` makes the flows smaller than the paper's 1.0. `scale_features` standardises each channel by the good images: EfficientNet-Lite0's differ in size by up to seven times.

# %%
from defectlab import Engine, Fastflow, Folder, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=8, num_workers=2, seed=42)
backbone = load_backbone("efficientnet_lite0")
model = Fastflow(
    backbone=backbone, layers=["blocks.2", "blocks.4"], flow_steps=4, hidden_ratio=0.2, scale_features=True,
    image_size=128,
)  # fmt: skip
results = Engine(max_epochs=2, check_val_every_n_epoch=2).train(model=model, datamodule=datamodule)

# %% [markdown]
# ## CS-Flow
#
# One flow across three scales of one layer. The paper's backbone is EfficientNet-B5: `.venv/bin/defectlab weights get efficientnet_b5`, then `load_backbone("efficientnet_b5")` and `layers=["features.6.8"]`.

# %%
from defectlab import Csflow, Engine, Folder, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=8, num_workers=2, seed=42)
backbone = load_backbone("efficientnet_lite0")
model = Csflow(backbone=backbone, layers=["blocks.4"], cross_conv_hidden_channels=64, image_size=128)
results = Engine(max_epochs=2, check_val_every_n_epoch=2).train(model=model, datamodule=datamodule)

# %% [markdown]
# ## SubspaceAD
#
# A PCA of good patches; what it cannot explain is anomalous. Nothing is trained, so one pass does, and few good images may do. You should see how many directions hold 99 % of the variance. The authors take DINOv2: `configs/few_shot_subspace.yaml`.

# %%
from defectlab import Engine, Folder, Subspace, load_backbone

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=8, num_workers=2, seed=42)
backbone = load_backbone("efficientnet_lite0")
model = Subspace(backbone=backbone, layers=["blocks.2", "blocks.4"], explained_variance=0.99, image_size=128)
results = Engine(max_epochs=1).train(model=model, datamodule=datamodule)

# %% [markdown]
# ## DRAEM
#
# Learns to find defects that it simulates with textures. `dtd_dir="data/dtd"` takes them from a folder of yours; without it a set of generated surfaces is made once. The widths here are a sixteenth of the paper's.

# %%
from defectlab import Draem, Engine, Folder

datamodule = Folder(root="data/coins", train_batch_size=4, eval_batch_size=8, num_workers=2, seed=42)
model = Draem(reconstructive_width=8, discriminative_width=4, image_size=128)
results = Engine(max_epochs=2, check_val_every_n_epoch=2).train(model=model, datamodule=datamodule)

# %% [markdown]
# ## A teacher for EfficientAD
#
# EfficientAD needs a pretrained teacher. anomalib's file goes into `weights/` as `pretrained_teacher_small.pth`; or distil one from any backbone, as here. The few steps are for show; give it thousands. It has a name of its own here, so that *Run All* never replaces a teacher of yours; `EfficientAd(teacher="weights/teacher_for_show.safetensors")` would take it.

# %%
from defectlab import distil_teacher, load_backbone

backbone = load_backbone("efficientnet_lite0")
teacher = distil_teacher(
    backbone, model_size="tiny", teacher_out_channels=64, image_size=64, steps=20, batch_size=4,
    output="weights/teacher_for_show.safetensors", overwrite=True,
)  # fmt: skip

# %% [markdown]
# ## Another model by name
#
# `.venv/bin/defectlab models list` shows all. Those of anomalib that DefectLab has no class for are built by `model_class`, with anomalib's options.

# %%
from defectlab import Engine, Folder, load_backbone, model_class

datamodule = Folder(root="data/coins", train_batch_size=10, eval_batch_size=8, num_workers=2, seed=42)
backbone = load_backbone("efficientnet_lite0")
model = model_class("dfm")(backbone=backbone, layer="blocks.2", image_size=128)
results = Engine(max_epochs=1).train(model=model, datamodule=datamodule)

# %% [markdown]
# ## One model for many categories
#
# `categories` are folders below `root`, each a dataset. One model is trained on the good images of both; each has thresholds and metrics of its own, as it would alone, and the run's are their means. You should see a table with a row for each; pixel metrics have no mean, since digits have no masks. New images need their category: `Detector.load(run).predict(images, category="coins")`.

# %%
from defectlab import Engine, Folder, Patchcore, load_backbone, make_sample

make_sample("digits", "data/digits", exist_ok=True, limit_data=20)
datamodule = Folder(root="data", categories=["coins", "digits"], eval_batch_size=8, num_workers=2, seed=42)
backbone = load_backbone("efficientnet_lite0")
model = Patchcore(backbone=backbone, layers=["blocks.2", "blocks.4"], coreset_sampling_ratio=0.01, image_size=128)
results = Engine(max_epochs=1).train(model=model, datamodule=datamodule)
