"""Samples are functions of seed and names: golden values pin them for every machine and Python version."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from defectlab.data.manifest.groups import groups_by
from defectlab.data.manifest.sampling import sample_calibration, sample_paths, share

NAMES = [f"train/good/{i:03d}.png" for i in range(10)]


def test_picks_rank_by_hash_of_seed_purpose_and_name():
    ranked = sorted(NAMES, key=lambda name: hashlib.sha256(f"42:test:{name}".encode()).hexdigest())
    assert sample_paths(NAMES, 4, 42, "test") == set(ranked[:4])
    assert sample_paths(reversed(NAMES), 4, 42, "test") == set(ranked[:4])
    assert sample_paths(NAMES, 4, 43, "test") != set(ranked[:4])
    assert sample_paths(NAMES, 4, 42, "validation") != set(ranked[:4])


def test_golden_sample_paths():
    golden = ["train/good/004.png", "train/good/006.png", "train/good/007.png"]
    assert sorted(sample_paths(NAMES, 3, 42, "validation")) == golden


def test_composed_and_decomposed_names_rank_alike():
    plain, composed, apart = ["a", "b", "c", "d"], "\u00e9", "e\u0301"
    for count in range(1, 5):
        one, other = sample_paths([*plain, composed], count, 1, "x"), sample_paths([*plain, apart], count, 1, "x")
        assert {name.replace(apart, composed) for name in other} == one


def test_equal_content_is_never_parted():
    twins = {"a": "1", "b": "1", "c": "1", "d": "2", "e": "3", "f": "4"}
    for seed in range(40):
        picked = sample_paths(twins, 3, seed, "x", twins)
        assert len(picked & {"a", "b", "c"}) in (0, 3)
        assert len(picked) == 3


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 40), min_size=1),
    st.floats(0, 0.99, allow_nan=False),
)
def test_shares_are_fair(sizes, ratio):
    taken = share(sizes, ratio)
    total = sum(sizes.values())
    for kind, size in sizes.items():
        if ratio > 0 and size >= 2 and total >= 2:
            assert 1 <= taken[kind] <= size - 1
        assert 0 <= taken[kind] <= size
        assert abs(taken[kind] - size * ratio) <= 1 + (size * ratio < 1)
    if ratio > 0 and total > 1 and min(sizes.values()) >= 4 and 0.25 < ratio < 0.75:
        assert sum(taken.values()) == int(total * ratio + 1e-9)


def test_the_odd_one_stays_behind_and_zero_takes_nothing():
    assert share({"good": 7}, 0.5) == {"good": 3}
    assert share({"good": 1}, 0.5) == {"good": 0}
    assert share({"good": 7}, 0) == {"good": 0}
    assert share({"good": 3}, 0.1) == {"good": 1}


def test_a_seeded_share_of_good_validation_images_is_held_back():
    images = [(f"{n}.png", int(n % 3 == 0), f"hash{min(n, 18)}") for n in range(20)]  # 18 and 19 are equal files
    held = sample_calibration(images, 0.5, 42)
    good = {path for path, label, _ in images if label == 0}
    assert held < good
    assert len(held) == len(good) // 2
    assert held == sample_calibration(images[::-1], 0.5, 42)
    assert held != sample_calibration(images, 0.5, 43)
    assert sample_calibration([("a", 0, "1")], 0.5, 42) == frozenset(), "one image cannot be on both sides"
    for seed in range(20):
        equal = sample_calibration([("a", 0, "1"), ("b", 0, "1"), ("c", 0, "2")], 0.5, seed)
        assert equal in ({"a", "b"}, {"c"})


def test_calibration_takes_whole_parts_that_are_good():
    images = [(f"{n:02d}_{view}.png", int(n < 4 and view == 0), f"{n}{view}") for n in range(12) for view in range(3)]
    held = sample_calibration(images, 0.5, 42, groups_by([path for path, _, _ in images], r"^(\d+)_"))
    parts = {path[:2] for path in held}
    assert len(parts) == 4  # half of the eight parts without a defect
    assert min(parts) >= "04"
    assert len(held) == 12
