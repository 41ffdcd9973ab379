"""Runs compared on the same images: ties, differences, and what must not be compared."""

import numpy as np
import pytest
from finished import finished

from defectlab.cli import main
from defectlab.errors import InputError
from defectlab.evaluation.intervals import delong_test
from defectlab.results.compare import compare_runs
from defectlab.results.record import Run, ScoreRow


def scored(name: str, noise: float, seed: int = 0, count: int = 60, **options) -> Run:
    """A run whose scores are the truth and noise of this size."""
    run = finished(name, **options)
    random = np.random.default_rng(seed)
    labels = np.repeat([0, 1], count // 2)
    scores = labels + random.normal(0, noise, count)
    rows = [ScoreRow(f"{n:03d}.png", "test", "", int(labels[n]), float(scores[n]), -1) for n in range(count)]
    run.write_scores(rows[::-1] if seed % 2 else rows)  # any order: images are matched by path
    return run


def test_a_worse_model_is_told_apart_and_a_similar_one_is_tied():
    best, near, far = scored("best", 0.5, 0), scored("near", 0.55, 1), scored("far", 3.0, 2)
    found = compare_runs([far, near, best])
    assert [one.run.folder.name for one in found][-1] == "far"
    assert found[0].tied
    assert found[1].tied
    assert not found[2].tied
    assert found[2].p < 0.05
    by_path = [sorted(one.run.scores(), key=lambda row: row.image_path) for one in found]
    scores = [[row.score for row in rows] for rows in by_path]
    plain = delong_test(scores[0], scores[2], [row.label for row in by_path[0]])
    assert found[2].test == plain
    assert found[2].p == pytest.approx(min(1, 2 * plain.p))


def test_the_command_prints_the_verdicts(capsys: pytest.CaptureFixture[str]):
    runs = [scored("one", 0.5, 0), scored("two", 4.0, 2)]
    assert main(["compare", *(str(run.folder) for run in runs)]) == 0
    printed = capsys.readouterr().out
    lines = [line.split("│") for line in printed.splitlines() if "│" in line]
    assert {line[2].strip(): line[-2].strip() for line in lines} == {"one": "best", "two": "worse"}
    assert "60 test images" in printed


def test_other_images_are_never_compared(capsys: pytest.CaptureFixture[str]):
    one, other = scored("one", 0.5), scored("two", 0.5, manifest="another")
    with pytest.raises(InputError, match="different images or splits"):
        compare_runs([one, other])
    with pytest.raises(InputError, match="no test scores"):
        compare_runs([one, finished("empty")])
    assert main(["compare", str(one.folder)]) == 2
    assert "at least two runs" in capsys.readouterr().err
