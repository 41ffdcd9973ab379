"""Thresholds of maps, block by block: those that all pixels at once would give."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defectlab.evaluation.metrics import sort_scores
from defectlab.evaluation.pixel.thresholds import choose_by_pixels, choose_pixel_threshold
from defectlab.evaluation.threshold import RuleOptions
from defectlab.evaluation.threshold_rules import choose, f1_threshold
from defectlab_runtime.errors import OptionError

SCORES = st.sampled_from([-np.inf, -1.5, 0.0, 0.1, 2.0, 2.5, 7.0, np.inf])
PIXELS = st.lists(st.tuples(SCORES, st.booleans()), min_size=12, max_size=12)


def split(pixels: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    """Three images of four pixels: maps (3, 2, 2), masks (3, 2, 2)."""
    scores, marks = zip(*pixels, strict=True)
    return np.array(scores, np.float32).reshape(3, 2, 2), np.array(marks).reshape(3, 2, 2)


def test_pixel_rule_follows_masks_and_classes() -> None:
    maps = np.zeros((3, 2, 2), dtype=np.float32)
    maps[0, 0, 0], maps[1, 1, 1], maps[2] = 2, 6, 100
    masks = np.zeros((3, 2, 2), dtype=bool)
    masks[1, 1, 1] = True
    labels = np.array([0, 1, -1])
    chosen = choose_pixel_threshold(maps, masks, labels)
    assert (chosen.value, chosen.rule) == (4.0, "f1")
    assert "1 anomalous and 7 good pixels" in chosen.reason
    without = choose_pixel_threshold(maps, None, labels)
    assert without.value == math.nextafter(2.0, 3)
    assert "no masks" in without.reason
    good_only = choose_pixel_threshold(maps[:1], masks[:1], labels[:1])
    assert "no anomalous pixels" in good_only.reason
    assert good_only.rule == "good_max"
    assert choose_pixel_threshold(maps[1:2], None, labels[1:2]).value is None
    assert choose_pixel_threshold(maps[1:2], np.ones((1, 2, 2), dtype=bool), labels[1:2]).value is None
    # a good image's highest pixel counts, and what is said counts its pixels
    assert "just above the highest of 4 pixels of 1 good images" in without.reason


@given(PIXELS, st.sampled_from([1, 400, 1 << 20]))
@settings(max_examples=120, deadline=None)
def test_f1_in_blocks_is_f1_over_all_pixels(pixels: list[tuple[float, bool]], memory: int):
    maps, masks = split(pixels)
    if not masks.any() or masks.all():
        return
    expected = f1_threshold(sort_scores(maps.ravel(), masks.ravel(), allow_infinite=True))
    packed = np.packbits(masks, axis=-1)
    for given_masks in (masks, packed):
        found = choose_pixel_threshold(maps, given_masks, np.array([1, 0, 1]), memory=memory)
        assert (found.value, found.rule) == (expected.value, expected.rule)
        if expected.value is not None:
            assert found.reason == expected.reason.replace("scores", "pixels")


@pytest.mark.parametrize("rule", ["f1", "mean_of_means", "mean_plus_k_std", "recall"])
def test_rules_over_pixels_are_the_rules_over_all_at_once(rule: str):
    draw = np.random.default_rng(1)
    masks = np.zeros((6, 9, 11), dtype=bool)
    masks[3:5, 2:6, 3:7] = True
    maps = (draw.normal(size=masks.shape) + 2 * masks).astype(np.float32).round(2)
    labels = np.array([0, 0, 0, 1, 1, -1])
    options = RuleOptions(recall=0.8, k=2.5)
    used = labels == 0 if rule == "mean_plus_k_std" else labels >= 0
    expected = choose(rule, maps[used].ravel(), masks[used].ravel().astype(int), options, "validation")
    found = choose_by_pixels(rule, maps, np.packbits(masks, axis=-1), labels, options, "validation")
    assert found.value == pytest.approx(expected.value, rel=1e-12)
    assert found.rule == expected.rule
    if rule == "recall":
        assert found.value == expected.value
        assert found.reason.startswith("catches 26 of 32 defect pixels of validation; pixels of one image are not")


def test_rules_by_image_look_at_each_good_images_highest_pixel():
    maps = np.arange(24, dtype=np.float32).reshape(6, 2, 2)
    labels = np.array([0, 0, 0, 0, 1, -1])
    found = choose_by_pixels("conformal", maps, None, labels, RuleOptions(false_alarm_rate=0.25), "validation")
    assert found.value == 15.0  # rank ceil(5 * 0.75) of 3, 7, 11, 15
    assert choose_by_pixels("manual", maps, None, labels, RuleOptions(value=2.0), "validation").value == 2.0
    by_part = choose_by_pixels(
        "conformal", maps, None, labels, RuleOptions(false_alarm_rate=0.4), "validation", ["a", "a", "b", "b", "c", "d"]
    )
    assert by_part.value == 15.0  # rank ceil(3 * 0.6) of 7 and 15


def test_conformal_over_pixels_leaves_out_parts_with_an_anomalous_image():
    maps = np.arange(24, dtype=np.float32).reshape(6, 2, 2)
    labels, groups = np.array([0, 0, 0, 0, 1, -1]), ["a", "b", "c", "d", "d", "e"]
    found = choose_by_pixels("conformal", maps, None, labels, RuleOptions(false_alarm_rate=0.25), "validation", groups)
    assert found.value == 11.0  # rank ceil(4 * 0.75) of 3, 7 and 11: d is anomalous, e unknown
    assert "score 3 of 3" in found.reason


def test_what_cannot_work_over_pixels_is_said():
    maps, masks = np.ones((2, 3, 3), np.float32), np.zeros((2, 3, 3), bool)
    broken = maps.copy()
    broken[0, 0, :2] = np.nan
    with pytest.raises(OptionError, match=r"needs masks at pixel level.*conformal"):
        choose_by_pixels("f1", maps, None, [0, 1], RuleOptions(), "validation")
    for rule in ("f1", "mean_of_means", "recall"):
        with pytest.raises(OptionError, match="needs anomalous images, and validation has none"):
            choose_by_pixels(rule, maps, masks, [0, 1], RuleOptions(), "validation")
        with pytest.raises(OptionError, match="2 of 18 scores are NaN"):
            choose_by_pixels(rule, broken, ~masks, [0, 1], RuleOptions(), "validation")
    with pytest.raises(OptionError, match="no finite threshold"):
        choose_by_pixels("mean_plus_k_std", maps * np.inf, None, [0, 1], RuleOptions(), "validation")
    nan = choose_pixel_threshold(np.full((1, 2, 2), np.nan, np.float32), np.eye(2, dtype=bool)[None], [1])
    assert nan.value is None
    assert "4 of 4 scores are NaN" in nan.reason
