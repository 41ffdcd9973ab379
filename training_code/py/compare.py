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
# # Compare runs
#
# Which configuration is better, by how much, and how sure can one be? This notebook reads the records under `results/`; it trains nothing and needs no GPU. Run it from top to bottom. Where there are no finished runs yet, the next cell says what makes some.
#
# You should see one line for each run.

# %%
from defectlab.results.comparison.runs import finished_runs
from defectlab.visualization.terminal import runs_table

runs = finished_runs()
runs_table(runs, f"{len(runs)} finished runs, oldest first")

# %% [markdown]
# ## Who is best
#
# One table for each dataset, split and pixel grid: runs on different images are never ranked against each other. *Tied with the best* means that these test images cannot tell the two apart. Seeds of one configuration are one row: `sd of seeds` is how much luck there is in the seed, `95% low` and `95% high` are how far other images could move the AUROC.

# %%
from IPython.display import display

from defectlab.results.comparison.runs import ranking_frame, rankings_of

rankings = rankings_of(runs)
for ranking in rankings:
    print(f"{ranking.group[0]}. {ranking.protocol}")
    print("A detector that calls every image anomalous gets:", {k: round(v, 3) for k, v in ranking.trivial.items()})
    display(ranking_frame(ranking).round(4))

# %% [markdown]
# The same as a picture: dots are image AUROCs, bars their 95 % intervals. Where bars overlap widely, more test images are worth more than another model.

# %%
from IPython.display import SVG

from defectlab.visualization.charts import ranking_chart

for ranking in rankings:
    display(SVG(ranking_chart(ranking)))

# %% [markdown]
# ## Paired tests
#
# Every run against the best one, image by image (DeLong's test; for more than two runs p-values are of all compared with each other, since the best was picked on these images). Two runs can overlap in their intervals and still be told apart here, because both see the same images.

# %%
from defectlab.results.comparison.paired_test import compare_runs
from defectlab.results.comparison.runs import ranked_runs
from defectlab.visualization.terminal import comparison_table

for ranking in rankings:
    same = ranked_runs(ranking, runs)
    if len(same) > 1:
        comparison_table(compare_runs(same))
    else:
        print(f"{ranking.group[0]}: {len(same)} run with an image AUROC, so nothing to compare it with.")

# %% [markdown]
# ## Where each fails
#
# For each kind of defect the AUROC against all good test images, and how many of it the run's own threshold caught. Red: false alarms, or defects that passed. A model that is best on average may be the worst on the one kind that matters to you.

# %%
from IPython.display import HTML

from defectlab.results.comparison.runs import kinds_by_run
from defectlab.visualization.html_tables import kinds_side_by_side

kinds = kinds_by_run(runs)
for ranking in rankings:
    style = "<style>td.wrong { color: #be141e; }</style>"
    display(HTML(f"<b>{ranking.group[0]}</b>{style}{kinds_side_by_side(ranking, kinds)}"))

# %% [markdown]
# ## Workbook and report
#
# `models_comparing.xlsx` has all of this in its sheets `leaderboard`, `per defect` and `about`. The report is one HTML file that opens anywhere: curves, histograms, confusion by kind, and the images on which each run fails. You should see where both lie.

# %%
from defectlab import write_report
from defectlab.results.workbook import update_workbook
from defectlab.utils import paths

print("Workbook:", paths.relative(update_workbook().path))
print("Report:", paths.relative(write_report(runs, paths.results_dir() / "report.html")))
