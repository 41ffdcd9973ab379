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
# Above which score is a part anomalous? That depends on what a false alarm and a missed defect cost you, not on the model. `RUN` is any run folder; the one below is made by the first training cell of `training_code/patchcore.ipynb`. Where it is absent the next cell says which runs there are. Nothing is trained here, and no model is loaded: the scores on record are enough. *Run All* changes nothing: the cells show what a choice would do, and only the one with `APPLY = True` writes.
#
# You should see the threshold as it is now, and how many validation images there are to choose another one by.

# %%
from defectlab import Run

RUN = "results/Patchcore/coins/efficientnet_lite0_blocks.2-blocks.4_0.01_3"
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
from defectlab.results.rethreshold import count_for_promise

good = count_for_promise(run)
RATE = max(0.1, 1 / (good + 1))
for rate in (0.1, 0.05, 0.01):
    print(f"at most {rate:.0%} false alarms: needs {images_needed(rate)} held-out good images, this run has {good}")
print(f"The lowest rate that can be promised here is {1 / (good + 1):.3f}; the next cell asks for {RATE:.3f}")

# %% [markdown]
# ## Your choice, as a preview
#
# Any rule of the table above, with its options. Nothing is written: you should see the threshold it would be and why, and how many of each kind of test image would be above it. That is for a look, not for a choice.

# %%
from defectlab.results.curves import by_kind

RULE, OPTIONS = "conformal", RuleOptions(false_alarm_rate=RATE)
(choice,) = compare_rules(run, {RULE: OPTIONS})
print(f"{RULE}: {choice.threshold} in place of {run.record['thresholds']['image']['value']}: {choice.reason}")
kinds = by_kind(run.scores("test"), choice.threshold)
pd.DataFrame([(kind.defect, kind.count, kind.flagged) for kind in kinds], columns=["kind", "images", "flagged"])

# %% [markdown]
# ## Write it
#
# Set `APPLY = True` and run this cell: the choice becomes the run's. Its record gets the threshold, every image its label, and all metrics at the threshold are computed again; its checkpoint, pictures, reports and row in `models_comparing.xlsx` follow, scores and maps stay. The same from a terminal: `defectlab threshold --run RUN --rule conformal --level image --false-alarm-rate 0.1`. You should see what the run decides by now, and its metrics.

# %%
from defectlab.inference.threshold import apply_threshold
from defectlab.visualization.terminal import metrics_table

APPLY = False
if APPLY:
    apply_threshold(run, RULE, OPTIONS, ["image"])
now = run.record["thresholds"]["image"]
print(f"{'Applied' if APPLY else 'Nothing was written'}. Image threshold {now['value']}, rule {now['rule']}")
metrics_table(run)

# %% [markdown]
# ## Take it back
#
# The record keeps the thresholds before. `UNDO = True` takes the last choice back, again and again until those of the training; so does `defectlab threshold --run RUN --undo`. You should see them, oldest first.

# %%
from defectlab.inference.threshold import undo_threshold

UNDO = False
if UNDO:
    undo_threshold(run)
earlier = [(one.until, one.thresholds.image) for one in run.record.earlier_thresholds]
rows = [(until, image.rule, image.value) for until, image in [*earlier, ("now", run.record.thresholds.image)]]
pd.DataFrame(rows, columns=["until", "rule", "image threshold"])
