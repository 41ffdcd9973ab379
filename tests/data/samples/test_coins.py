import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import reference_detectors as detectors
from PIL import Image

from defectlab.data.samples import coins, make_sample, sources
from defectlab.data.samples.compose import SIZE, Box, render, render_mask
from defectlab.data.samples.photographs import PHOTOGRAPHS, Grey, load_photograph, photograph_file
from defectlab_runtime.errors import DataError

Loaded = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sample("coins", tmp_path_factory.mktemp("samples") / "coins")


@pytest.fixture(scope="module")
def record(root: Path) -> dict:
    return json.loads((root / "sample.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def photographs() -> dict[str, Grey]:
    return {name: load_photograph(name) for name in PHOTOGRAPHS}


@pytest.fixture(scope="module")
def items(photographs: dict[str, Grey]) -> list[coins.Item]:
    return list(coins.plan(42, photographs))


@pytest.fixture(scope="module")
def loaded(root: Path) -> Loaded:
    return detectors.load(root)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def noise_outside(photographs: dict[str, Grey], keep: list[Box]) -> dict[str, Grey]:
    """Replace every source pixel that lies in no box of `keep`."""
    draws = np.random.default_rng(7)
    marked = {name: draws.integers(0, 256, photo.shape, dtype=np.uint8) for name, photo in photographs.items()}
    for box in keep:
        place = np.s_[box.top : box.bottom, box.left : box.right]
        marked[box.photo][place] = photographs[box.photo][place]
    return marked


def test_layout_and_counts(root: Path):
    assert len(names(root / "train/good")) == 90
    assert names(root / "train") == ["good"]
    assert len(names(root / "test/good")) == 20
    assert names(root / "test") == ["coin", "good", "patch", "scratch"]
    assert names(root / "ground_truth") == ["coin", "patch", "scratch"]
    for kind in ("coin", "patch", "scratch"):
        stems = [Path(name).stem for name in names(root / "test" / kind)]
        assert len(stems) == 15
        assert names(root / "ground_truth" / kind) == [f"{stem}_mask.png" for stem in stems]
    with Image.open(root / "train/good/000.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "L", (256, 256))


def test_surfaces_kinds_and_difficulties_are_balanced(record: dict):
    about = [
        (path.rsplit("/", 1)[0], *map(facts.get, ("surface", "difficulty"))) for path, facts in record["files"].items()
    ]
    for folder, each in (("train/good", 30), ("test/coin", 5), ("test/patch", 5), ("test/scratch", 5)):
        assert [sum(a[:2] == (folder, s) for a in about) for s in ("gravel", "brick", "grass")] == [each] * 3
    for kind in coins.KINDS:
        assert sum(a[0] == f"test/{kind}" and a[2] == "hard" for a in about) == 3


def test_hard_defects_are_smaller(root: Path, record: dict):
    for kind in coins.KINDS:
        area: dict[str, list[int]] = {"easy": [], "medium": [], "hard": []}
        for path, facts in record["files"].items():
            if path.startswith(f"test/{kind}/"):
                mask = Image.open(root / path.replace("test/", "ground_truth/").replace(".png", "_mask.png"))
                area[facts["difficulty"]].append(int((np.asarray(mask) > 0).sum()))
        assert np.mean(area["hard"]) < 0.6 * np.mean(area["medium"])


def test_two_builds_are_equal_byte_by_byte(root: Path, tmp_path: Path):
    again = make_sample("coins", tmp_path / "again")
    for path in sorted(root.rglob("*.*")):
        assert path.read_bytes() == (again / path.relative_to(root)).read_bytes(), path


def test_another_seed_makes_other_images(photographs: dict[str, Grey], items: list[coins.Item]):
    other = [item.scene for item in coins.plan(43, photographs)]
    assert not any(scene == item.scene for scene, item in zip(other, items, strict=True))


def test_pixels_are_those_of_version_1(root: Path, record: dict):
    # Pixels, not PNG bytes, which may differ between versions of Pillow. A change here needs a new version number.
    digest = hashlib.sha256()
    for path in record["files"]:
        pixels = np.asarray(Image.open(root / path))
        digest.update(f"{path} {pixels.shape} ".encode() + pixels.tobytes())
    assert digest.hexdigest() == record["pixels_sha256"]
    assert record["version"] == 1
    assert record["pixels_sha256"] == "e0c967c5a03ae7248cb55703210977691d3781d03569343e67a8a4b8fcda97a6"


def test_no_source_pixel_is_in_training_and_test(photographs: dict[str, Grey], record: dict):
    used = {part: {n: np.zeros(p.shape, bool) for n, p in photographs.items()} for part in ("train", "test")}
    for path, facts in record["files"].items():
        for photo, left, top, right, bottom in facts.get("boxes", []):
            height, width = photographs[photo].shape
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
            used[path.split("/")[0]][photo][top:bottom, left:right] = True
    for name in photographs:
        assert not (used["train"][name] & used["test"][name]).any(), name
    for surface in coins.SURFACES:
        assert used["train"][surface].sum() > 0.45 * photographs[surface].size
        assert used["test"][surface].sum() > 0.3 * photographs[surface].size


def test_an_image_depends_on_its_recorded_boxes_only(photographs: dict[str, Grey], items: list[coins.Item]):
    for item in items[::4]:
        marked = noise_outside(photographs, item.scene.boxes())
        np.testing.assert_array_equal(render(item.scene, marked), render(item.scene, photographs), str(item))


def test_marking_a_recorded_box_changes_the_image(photographs: dict[str, Grey], items: list[coins.Item]):
    # The counter-proof: without it the test above could pass because nothing is read from the photographs.
    for item in [i for i in items if i.defect][::5]:
        for box in item.scene.boxes():
            others = [other for other in item.scene.boxes() if other != box]
            marked = noise_outside(photographs, others)
            assert (render(item.scene, marked) != render(item.scene, photographs)).any()


@pytest.mark.parametrize("part", ["train", "test"])
def test_whole_build_of_one_part_ignores_the_other_parts_pixels(photographs: dict[str, Grey], root: Path, part: str):
    # Choices (the search for a fitting seam) are included: all is planned again on the marked photographs.
    keep = [Box(surface, *region[part]) for surface, region in coins.REGIONS.items()]
    if part == "test":
        keep += [
            Box(name, 0, 0, p.shape[1], p.shape[0]) for name, p in photographs.items() if name not in coins.SURFACES
        ]
    marked = noise_outside(photographs, keep)
    checked = 0
    for picture in coins.pictures(42, marked):
        if picture.path.startswith("train") == (part == "train"):
            np.testing.assert_array_equal(picture.pixels, np.asarray(Image.open(root / picture.path)), picture.path)
            checked += 1
        elif part == "train":
            break
    assert checked == {"train": 90, "test": 20 + 2 * 45}[part]


def test_masks_are_exact(photographs: dict[str, Grey], items: list[coins.Item]):
    for item in [item for item in items if item.scene.overlays]:
        mask = render_mask(item.scene) > 0
        changed = render(item.scene, photographs) != render(replace(item.scene, overlays=()), photographs)
        assert not (changed & ~mask).any(), "a pixel outside the mask was touched"
        if item.defect:
            assert changed[mask].mean() > 0.85, (item.folder, item.stem)
            assert 60 < mask.sum() < 0.25 * SIZE * SIZE


def test_masks_on_disk_are_the_rendered_ones(root: Path, items: list[coins.Item]):
    for item in items:
        if item.defect:
            mask = np.asarray(Image.open(root / f"ground_truth/{item.defect}/{item.stem}_mask.png"))
            np.testing.assert_array_equal(mask, render_mask(item.scene))
            assert set(np.unique(mask)) == {0, 255}


def test_defects_come_from_other_photographs(items: list[coins.Item]):
    for item in items:
        pasted = [overlay.box.photo for overlay in item.scene.overlays]
        if item.defect:
            assert len(pasted) == 1
            assert pasted[0] not in coins.SURFACES
            assert (item.defect in ("coin", "scratch")) == (pasted[0] == "coins")
        else:
            assert all(photo == item.surface for photo in pasted)


def test_good_images_carry_pasted_pieces_of_their_own_texture(items: list[coins.Item]):
    good = [item for item in items if item.folder == "test/good" and item.scene.overlays]
    train = [item for item in items if item.folder == "train/good" and item.scene.overlays]
    bad = [item for item in items if item.defect]
    assert 10 <= len(good) < 20
    assert 20 <= len(train) <= 45
    outlines = {item.scene.overlays[0].shape.kind for item in bad}
    assert outlines == {"disc", "blob", "quad", "line"}
    assert {item.scene.overlays[0].shape.kind for item in good} == outlines
    assert {item.surface for item in good} == set(coins.SURFACES)
    for item in good + train:
        (overlay,) = item.scene.overlays
        scale = (item.scene.surface.right - item.scene.surface.left) / SIZE
        assert overlay.box.right - overlay.box.left == pytest.approx(2 * overlay.reach * scale, abs=0.51)
        assert overlay.flips == item.scene.flips


def test_pasting_own_texture_changes_the_image(photographs: dict[str, Grey], items: list[coins.Item]):
    for item in items:
        if item.folder == "test/good" and item.scene.overlays:
            changed = render(item.scene, photographs) != render(replace(item.scene, overlays=()), photographs)
            assert changed[render_mask(item.scene) > 0].mean() > 0.5


def test_light_and_flips_vary_alike(items: list[coins.Item]):
    train = [item.scene for item in items if item.folder == "train/good"]
    test = [item.scene for item in items if item.folder != "train/good"]
    for scenes in (train, test):
        gains = [scene.lighting.gain for scene in scenes]
        assert min(gains) < 0.9
        assert max(gains) > 1.1
        assert {scene.flips for scene in scenes if scene.surface.photo != "brick"} == {
            (x, y) for x in (False, True) for y in (False, True)
        }
        assert {scene.flips for scene in scenes if scene.surface.photo == "brick"} == {(False, False), (True, False)}


def test_best_seam_takes_the_fitting_candidate(items: list[coins.Item]):
    item = next(i for i in items if i.folder == "test/good" and i.scene.overlays)
    (overlay,) = item.scene.overlays
    canvas = np.full((SIZE, SIZE), 100.0)
    flat = {"a": np.full((512, 512), 180, np.uint8), "b": np.full((512, 512), 101, np.uint8)}
    candidates = [replace(overlay, box=Box(name, 0, 0, 50, 50)) for name in ("a", "b", "a")]
    assert coins.best_seam(canvas, candidates, flat).box.photo == "b"


def test_sources_name_origin_and_licence(root: Path, record: dict):
    found = {source["name"]: source for source in sources(root)}
    used = {box[0] for facts in record["files"].values() for box in facts.get("boxes", [])}
    assert set(found) == used == {"gravel", "brick", "grass", "coins", "coffee", "chelsea", "text"}
    for source in found.values():
        assert source["licence"]
        assert source["origin"]
        assert hashlib.sha256(photograph_file(source["name"]).read_bytes()).hexdigest() == source["sha256"]


def test_photographs_are_those_of_scikit_image(photographs: dict[str, Grey]):
    from skimage import data

    for name in ("gravel", "brick", "grass", "coins", "text"):
        np.testing.assert_array_equal(photographs[name], getattr(data, name)())


def test_a_changed_or_missing_photograph_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    other = tmp_path / "gravel.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(other)
    monkeypatch.setattr("defectlab.data.samples.photographs.photograph_file", lambda _name: other)
    with pytest.raises(DataError, match="not the photograph that this sample is defined on"):
        load_photograph("gravel")
    monkeypatch.undo()
    with pytest.raises(DataError, match="does not hold the photograph 'rocks'"):
        photograph_file("rocks")
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(DataError, match="pip install scikit-image"):
        photograph_file("gravel")


def test_trivial_detectors_fail(loaded: Loaded):
    train, test, labels, _ = loaded
    reached = {n: detectors.image_auroc(labels, s) for n, s in detectors.trivial_scores(train, test).items()}
    assert all(auroc < 0.95 for auroc in reached.values()), reached
    assert all(auroc < 0.75 for name, auroc in reached.items() if name.startswith("mean pixel")), reached


def random_resnet(seed: int):
    torch = pytest.importorskip("torch")
    from torchvision.models import resnet18

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return resnet18()


def test_random_weights_fail(loaded: Loaded):
    train, test, labels, _ = loaded
    # Half the images and a quarter of the patches: the whole is measured by the long test.
    maps = detectors.neighbour_maps(random_resnet(0), train[::2], test, 128, stride=4)
    assert detectors.image_auroc(labels, maps.max((1, 2))) < 0.85


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_random_weights_fail_at_full_size(loaded: Loaded, seed: int):
    train, test, labels, _ = loaded
    maps = detectors.neighbour_maps(random_resnet(seed), train, test, 256)
    assert detectors.image_auroc(labels, maps.max((1, 2))) < 0.85


@pytest.mark.real
@pytest.mark.long
def test_trained_weights_solve_it(loaded: Loaded, real: Path):
    torch = pytest.importorskip("torch")
    network = random_resnet(0)
    network.load_state_dict(torch.load(real / "weights/resnet18.pth", weights_only=True), strict=False)
    train, test, labels, masks = loaded
    maps = detectors.neighbour_maps(network, train, test, 256)
    assert detectors.image_auroc(labels, maps.max((1, 2))) > 0.87
    assert detectors.pixel_auroc(masks, maps) > 0.95
