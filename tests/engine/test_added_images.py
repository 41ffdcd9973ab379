"""Good images added to a fitted model: what a training on all images gives, or within the stated bound of it."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.datasets import make_parts
from helpers.models import data, small
from PIL import Image

from defectlab import Detector, Engine
from defectlab.cli.main import main
from defectlab.data.manifest.manifest import Manifest
from defectlab.engine.added_images import prepare_addition
from defectlab.inference.nearest_patches import nearest_good_patches
from defectlab.inference.review import ReviewedFolder
from defectlab.kernels.neighbours import nearest_neighbours
from defectlab.models.checkpoint import CHECKPOINT_KEY, read_checkpoint, write_checkpoint
from defectlab.models.loading import restore
from defectlab.results.run.run import Run
from defectlab_runtime.errors import DataError, InputError


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Parts with eight training images, and a folder of four more good ones."""
    folder = tmp_path_factory.mktemp("added")
    root = make_parts(folder / "parts", train=12)
    more = folder / "more"
    more.mkdir()
    for number, file in enumerate(sorted((root / "train/good").iterdir())):
        if number % 3 == 1:  # so that they lie between the others
            shutil.move(file, more / file.name)
    return root, more


def engine(**options: Any) -> Engine:
    return Engine(enable_progress_bar=False, **options)


def parent(name: str, root: Path, **options: Any) -> Run:
    model = small(name, **options)
    engine().train(model=model, datamodule=data(root))
    return Run.open(model.run_folder)


def added_and_fitted_anew(run: Run, more: Path, name: str, **options: Any) -> tuple[Run, Run]:
    """The run with more images added to its model, and one trained on all of them."""
    adding = engine()
    adding.add_images(run.folder, more)
    model = small(name, **options)
    engine().train(model=model, datamodule=ReviewedFolder(run.folder, sorted(more.iterdir()), num_workers=0))
    assert adding.best_model_path is not None
    return Run.of_checkpoint(Path(adding.best_model_path)), Run.open(model.run_folder)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("name", "options", "form"),
    [("padim", {}, "low_rank"), ("padim", {"n_features": 3}, "factor"), ("subspace", {}, None)],
)
def test_padim_and_subspace_become_what_a_training_on_all_gives(
    images: tuple[Path, Path], name: str, options: dict[str, Any], form: str | None
):
    root, more = images
    run = parent(name, root, **options)
    before = {file.relative_to(run.folder): file.read_bytes() for file in run.folder.rglob("*") if file.is_file()}
    added, anew = added_and_fitted_anew(run, more, name, **options)
    if form is not None:
        assert restore(run.checkpoint).model.gaussian.value.form == form
    for split in ("validation", "test"):
        ours, theirs = ([row.score for row in one.scores(split)] for one in (added, anew))
        assert ours == pytest.approx(theirs, rel=2e-5)
        np.testing.assert_allclose(added.maps(split), anew.maps(split), rtol=1e-4, atol=1e-6)
        assert [row.image_path for row in added.scores(split)] == [row.image_path for row in run.scores(split)]
    assert added.record.metrics == pytest.approx(anew.record.metrics, rel=1e-4)
    assert added.record.thresholds.image.value == pytest.approx(anew.record.thresholds.image.value, rel=2e-5)
    after = {file.relative_to(run.folder): file.read_bytes() for file in run.folder.rglob("*") if file.is_file()}
    assert after == before, "the earlier run stays as it is"

    assert added.status == "finished"
    assert added.record.name == f"{run.record.name}_added-4"
    assert added.record.run_id not in (run.record.run_id, anew.record.run_id)
    assert added.record.addition is not None
    assert added.record.addition.parent == run.record.run_id
    assert {Path(image).name for image in added.record.addition.images} == {file.name for file in more.iterdir()}
    assert added.record.dataset.counts["train"]["good"] == 12
    assert added.record.dataset.manifest == anew.record.dataset.manifest
    row = added.scores("test")[0]
    assert Detector.load(added.folder).predict(row.image_path)[0].score == pytest.approx(row.score, rel=1e-5)


def test_images_can_be_added_again(images: tuple[Path, Path]):
    root, more = images
    model = small("padim", n_features=3)
    engine().train(model=model, datamodule=data(root, k_shots=[4]))
    run = Run.open(model.run_folder)
    assert run.record.k_shots is not None
    files = sorted(more.iterdir())
    first, second = engine(), engine()
    first.add_images(run.folder, files[:1])
    second.add_images(str(first.best_model_path), more)  # the first of them is trained on already
    both = Run.of_checkpoint(Path(str(second.best_model_path)))
    at_once = engine()
    at_once.add_images(run.folder, more)
    whole = Run.of_checkpoint(Path(str(at_once.best_model_path)))
    assert both is not None
    assert whole is not None
    assert both.record.addition is not None
    assert len(both.record.addition.images) == 3
    assert both.record.k_shots is None, "fits with few of all images would be trainings"
    assert [row.score for row in both.scores()] == pytest.approx([row.score for row in whole.scores()], rel=2e-5)


def test_patchcores_bank_grows_within_the_stated_bound(images: tuple[Path, Path]):
    root, more = images
    run = parent("patchcore", root)
    added, anew = added_and_fitted_anew(run, more, "patchcore")
    models = [restore(one.checkpoint) for one in (run, added, anew)]
    banks = [model.model.memory_bank for model in models]
    assert torch.equal(banks[1][: len(banks[0])], banks[0]), "the bank that was there stays"
    assert abs(len(banks[1]) - len(banks[2])) <= 1

    def patches(one: Run, split: str) -> torch.Tensor:
        paths = [row.image_path for row in one.scores(split)] if split == "test" else None
        manifest = ReviewedFolder(run.folder, sorted(more.iterdir()), num_workers=0).manifest
        known = {entry.sha256 for entry in prepare_addition(run.folder, more).added}
        chosen = [entry for entry in manifest.split("train") if (entry.sha256 in known) == (split == "new")]
        files = paths or [str(manifest.absolute(entry)) for entry in chosen]
        model = models[0]
        pixels = [np.array(Image.open(file).convert("RGB")) for file in files]
        with torch.no_grad():
            inputs = Detector.load(run.folder).model_input(pixels)
            return model.model.rows(model.model.embed(model.model.features(inputs)))

    old, new, queries = patches(run, "old"), patches(run, "new"), patches(run, "test")

    def radius(rows: torch.Tensor, bank: torch.Tensor) -> float:
        return float(nearest_neighbours(rows, bank, 1)[0].max())

    everything = torch.cat([old, new])
    assert radius(old, banks[1]) <= radius(old, banks[0])
    covering = max(radius(old, banks[0]), radius(new, banks[1]))
    assert f"farther than {radius(new, banks[1]):.4g}"[:-1] in added.record.notes["added images"]
    to_all = nearest_neighbours(queries, everything, 1)[0]
    ours, theirs = (nearest_neighbours(queries, bank, 1)[0] for bank in banks[1:])
    assert float((ours - to_all).max()) <= covering + 1e-4
    assert float((ours - theirs).abs().max()) <= max(covering, radius(everything, banks[2])) + 1e-4

    origin = models[1].bank_origin
    manifest = prepare_addition(run.folder, more).manifest
    assert {manifest.entries[int(image)].split for image in origin.images} == {"train"}
    row = added.scores("test")[0]
    nearest = nearest_good_patches(Detector.load(added.folder), row.image_path, count=len(banks[1]))
    assert {one.image_path.parent.name for one in nearest.patches} == {"good", "more"}


def test_banks_of_rotated_images_by_cosine_grow_too(images: tuple[Path, Path]):
    root, more = images
    run = parent("patchcore", root, rotations=2, distance="cosine", coreset_sampling_ratio=0.05)
    adding = engine()
    adding.add_images(run.folder, more)
    before, after = restore(run.checkpoint), restore(Path(str(adding.best_model_path)))
    earlier, origin = before.bank_origin, after.bank_origin
    assert len(after.model.memory_bank) == len(before.model.memory_bank) + int(0.05 * 4 * 2 * 8 * 8)
    assert len(origin.images) == len(origin.degrees) == len(after.model.memory_bank)
    assert torch.equal(origin.degrees[: len(earlier.degrees)], earlier.degrees)
    manifests = [Manifest.read(Path(one.run_folder) / "manifest.json") for one in (before, after)]
    old = [manifests[0].entries[int(image)].path for image in earlier.images]
    now = [manifests[1].entries[int(image)].path for image in origin.images]
    assert now[: len(old)] == old
    assert {Path(path).parent.name for path in now[len(old) :]} == {"more"}


def test_too_few_added_patches_for_the_banks_share_are_refused_with_the_number_that_works(images: tuple[Path, Path]):
    root, more = images
    run = parent("patchcore", root, coreset_sampling_ratio=0.006)  # of 64 patches an image
    files = sorted(more.iterdir())
    with pytest.raises(InputError, match="none of the 128 patches of 2 added images: add at least 3 at once"):
        engine().add_images(run.folder, files[:2])
    adding = engine()
    adding.add_images(run.folder, files[:3])
    banks = [len(restore(file).model.memory_bank) for file in (run.checkpoint, Path(str(adding.best_model_path)))]
    assert banks == [int(8 * 64 * 0.006), int(8 * 64 * 0.006) + 1]


def test_added_images_without_any_foreground_are_refused(images: tuple[Path, Path]):
    model = small("patchcore", foreground_mask=True)
    model.model.masks_background = torch.tensor(True)
    model.model.memory_bank = torch.rand(5, 4)
    model._is_fitted = torch.tensor([True])
    model.begin_adding([0])
    with pytest.raises(InputError, match="finds 0 foreground patches in the added images"):
        model.fit_embedding(torch.ones(2, 4, 8, 8))  # the same everywhere: no direction tells an object


def test_images_that_cannot_be_added_are_refused(images: tuple[Path, Path], tmp_path: Path):
    root, more = images
    run = parent("subspace", root)
    tested, validated = ({Path(row.image_path) for row in run.scores(split)} for split in ("test", "validation"))
    for image in (min(tested - validated), min(validated)):
        copy = tmp_path / "copy.png"
        shutil.copy(image, copy)
        with pytest.raises(DataError, match=r"copy.png is .*, which is in (test|validation)"):
            prepare_addition(run.folder, [more, copy])
    with pytest.raises(InputError, match="trained on all of these images already"):
        prepare_addition(run.folder, root / "train/good")
    with pytest.raises(DataError, match="no file or folder"):
        prepare_addition(run.folder, tmp_path / "none")
    with pytest.raises(InputError, match="no run folder or checkpoint"):
        prepare_addition(tmp_path / "none", more)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.png"):
        prepare_addition(run.folder, [more, broken])
    with pytest.raises(InputError, match=r"pixels at input.*Engine\(pixel_size='input'\)"):
        engine(pixel_size="original").add_images(run.folder, more)


def test_other_models_and_older_checkpoints_are_refused_with_the_fix(images: tuple[Path, Path]):
    root, more = images
    model = small("cflow")
    engine(max_epochs=1).train(model=model, datamodule=data(root))
    with pytest.raises(InputError, match=r"cannot be added to Cflow.*padim, patchcore, subspace"):
        prepare_addition(model.run_folder, more)
    for name, options, key in (("subspace", {}, "sums"), ("padim", {"n_features": 3}, "images")):
        run = parent(name, root, **options)
        content = dict(read_checkpoint(run.checkpoint))
        content[CHECKPOINT_KEY] = {k: v for k, v in content[CHECKPOINT_KEY].items() if k != key}
        older = run.checkpoint.with_suffix(".older")
        write_checkpoint(content, older)
        older.replace(run.checkpoint)
        with pytest.raises(InputError, match="train it again on all images"):
            engine().add_images(run.folder, more)


def test_one_model_for_several_categories_is_refused(images: tuple[Path, Path], tmp_path: Path):
    for name in ("bolts", "nuts"):
        make_parts(tmp_path / "set" / name, train=4, good=3, bad=2)
    model = small("padim")
    engine().train(model=model, datamodule=data(tmp_path / "set", categories=["bolts", "nuts"]))
    with pytest.raises(InputError, match=r"2 categories.*train again"):
        prepare_addition(model.run_folder, images[1])


def test_the_command_adds_and_refuses_before_torch_is_loaded(
    images: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
):
    root, more = images
    run = parent("padim", root)
    assert main(["add-images", str(run.folder), str(more), "--accelerator", "cpu"]) == 0
    assert "_added-4" in capsys.readouterr().out
    code = "import sys; from defectlab.cli.main import main; print(main(sys.argv[1:]), 'torch' in sys.modules)"
    command = [sys.executable, "-c", code, "add-images", str(run.folder), str(root / "test/good")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["2", "False"]
    assert "which is in test" in done.stderr
