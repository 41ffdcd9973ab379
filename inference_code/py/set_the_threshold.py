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
# # Set the threshold
#
# Above which score is a part anomalous? That depends on what a false alarm and a missed defect cost you, not on the model. `RUN` is any run folder; the one below is made by the first training cell of `training_code/patchcore.ipynb`. Where it is absent the next cell says which runs there are. Nothing is trained here, and no model is loaded: the scores on record are enough.
#
# You should see the threshold as it is now, and how many validation images there are to choose another one by.

# %%
from defectlab import Run

RUN = "results/Patchcore/coins/defectlab_resnet18_layer2-layer3_0.01_3"
run = Run.open(RUN)
now = run.record["thresholds"]["image"]
labels = [row.label for row in run.scores("validation")]
print(f"Image threshold {now['value']}, rule {now['rule']}, from {now['source']}: {now['reason']}")
print(f"Validation images: {labels.count(0)} good, {labels.count(1)} anomalous")

# %% [markdown]
# ## What each rule would do
#
# Counts of validation images that each rule gets wrong, and its reason. `f1` balances both mistakes; `recall` lets at most a tenth of the defects pass; `cost` weighs a miss as fifty false alarms on a line with 2 % defects; `quantile`, `conformal` and `mean_plus_k_std` look at good images only. A rule that cannot work on these images says why. The test images play no part: choosing by them would be an oracle.

# %%
import pandas as pd

from defectlab.evaluation.threshold_rules import RuleOptions
from defectlab.visualization.threshold_comparison import compare_rules

rules = {"f1": RuleOptions(), "recall": RuleOptions(recall=0.9), "mean_plus_k_std": RuleOptions(k=3)}
rules |= {rule: RuleOptions(false_alarm_rate=0.1) for rule in ("quantile", "conformal")}
rules["cost"] = RuleOptions(miss_cost=50, false_alarm_cost=1, defect_share=0.02)
outcomes = compare_rules(run, rules)
pd.set_option("display.max_colwidth", None)
pd.DataFrame(outcomes)

# %% [markdown]
# The same on the scores themselves: blue strokes are good validation images, red ones anomalous, each dot is a rule's threshold. What lies to its right is called anomalous.

# %%
from IPython.display import SVG

from defectlab.visualization.threshold_comparison import rules_chart

SVG(rules_chart(run, outcomes))

# %% [markdown]
# ## What can be guaranteed
#
# `conformal` promises that a new good part of the same kind is flagged with at most the stated probability, whatever the model, if the images it is made on chose nothing else: where they chose the epoch or the configuration, its reason says that nothing is promised (`data.calibration_share` holds images back for it). The price is held-out good images: the lower the rate, the more of them. You should see the lowest rate that this run's images allow; `RATE` is that, or one in ten if they allow it.

# %%
from defectlab.evaluation.threshold_rules import images_needed

good = len(run.record.dataset.calibration) or labels.count(0)
RATE = max(0.1, 1 / (good + 1))
for rate in (0.1, 0.05, 0.01):
    print(f"at most {rate:.0%} false alarms: needs {images_needed(rate)} held-out good images, this run has {good}")
print(f"The lowest rate that can be promised here is {1 / (good + 1):.3f}; the next cell asks for {RATE:.3f}")

# %% [markdown]
# ## Write it
#
# The run's record gets the new threshold, every image its new label, and all metrics at the threshold are computed again; scores and maps stay as they are. The same from a terminal: `defectlab threshold --run RUN --rule conformal --level image --false-alarm-rate 0.1`. Another rule later replaces it. You should see the reason on record and the run's metrics.

# %%
from defectlab.results.rethreshold import set_threshold
from defectlab.visualization.terminal import metrics_table

chosen = set_threshold(run, "conformal", RuleOptions(false_alarm_rate=RATE), ["image"])
print(f"{chosen['image'].value}: {chosen['image'].reason}")
metrics_table(run)

# %% [markdown]
# ## What it does on the test images
#
# For a look, not for a choice. How many of each kind of test image are now above the threshold; the run's pictures and its row in `models_comparing.xlsx` follow.

# %%
from defectlab import save_panel
from defectlab.results.curves import by_kind
from defectlab.results.workbook import update_workbook

kinds = by_kind(run.scores("test"), chosen["image"].value)
save_panel(run)
update_workbook(run)
pd.DataFrame([(kind.defect, kind.count, kind.flagged) for kind in kinds], columns=["kind", "images", "flagged"])
