"""Data options are declared once: every field, and a new one, reaches `Folder`, the manifest, YAML and the commands."""

import inspect
import subprocess
import sys
from dataclasses import Field, fields
from enum import StrEnum
from pathlib import Path

import pytest
from docstring_parser import parse

import defectlab
from defectlab.cli.data import COMMANDS
from defectlab.cli.train import TRAIN
from defectlab.data.folder import Folder
from defectlab.data.manifest import options as module
from defectlab.data.manifest.check import check
from defectlab.data.manifest.manifest import build_manifest
from defectlab.data.manifest.options import ALWAYS_RECORDED, DataOptions
from defectlab.experiment import Experiment
from defectlab_runtime.errors import OptionError

# anomalib's own defaults, and None where one of two names for a value is given
DEFAULTS_OF_FOLDER = {
    **{"train_batch_size": 32, "eval_batch_size": 32, "num_workers": 8},
    **{"seed": 42, "test_split_ratio": None},
}
HELP = {line.arg_name: " ".join(str(line.description).split()) for line in parse(DataOptions.__doc__ or "").params}


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.row("3.4")
@pytest.mark.parametrize("option", fields(DataOptions), ids=lambda option: option.name)
def test_every_option_arrives_everywhere_with_its_default_and_its_help(option: Field):
    name = option.name
    assert HELP[name]
    folder = inspect.signature(Folder).parameters[name]
    assert folder.default == DEFAULTS_OF_FOLDER.get(name, option.default)
    assert f"{name}: {HELP[name]}" in words(Folder.__doc__)
    for function in (build_manifest, check):
        parameter = inspect.signature(function).parameters[name]
        assert parameter.default == (inspect.Parameter.empty if name == "root" else option.default)
    Experiment.check_names({"data": {name: None}})
    for parser, typed in ((TRAIN.parser(), f"data.{name}"), (COMMANDS["check"].parser(), name)):
        action = next(action for action in parser._actions if action.dest == typed)
        if (name, typed) != ("root", "root"):  # the command's positional argument
            assert (words(action.help), action.default) == (HELP[name], option.default)


def test_a_new_option_is_one_field():
    """The fields of a dataclass with one more are where those of `DataOptions` are, with nothing else changed."""
    code = """
import sys, types, inspect
name, file = "defectlab.data.manifest.options", sys.argv[1]
source = open(file, encoding="utf-8").read()
for old, new in (
    ("        passes: How", "        novelty: How new an image is.\\n        passes: How"),
    ("    passes: int = 1", "    novelty: int = 7\\n    passes: int = 1"),
):
    assert source.count(old) == 1
    source = source.replace(old, new)
module = sys.modules[name] = types.ModuleType(name)
exec(compile(source, file, "exec"), vars(module))

from defectlab.cli.data import COMMANDS
from defectlab.cli.train import TRAIN
from defectlab.data.folder import Folder
from defectlab.data.manifest.manifest import build_manifest
from defectlab.experiment import Experiment

assert inspect.signature(build_manifest).parameters["novelty"].default == 7
assert Folder(root="x").settings.novelty == 7
assert Folder(root="x", novelty=8).options["novelty"] == 8
assert "novelty" not in Folder(root="x").options
assert "novelty: How new an image is." in Folder.__doc__
made = Experiment.from_dict({"data": {"root": "x", "novelty": 9}, "model": {"name": "padim"}})
assert made.to_dict()["data"]["novelty"] == 9
for parser, option in ((TRAIN.parser(), "--data.novelty"), (COMMANDS["check"].parser(), "--novelty")):
    action = next(action for action in parser._actions if option in action.option_strings)
    assert (action.help, action.default) == ("How new an image is.", 7)
print("everywhere")
"""
    command = [sys.executable, "-c", code, str(module.__file__)]
    root = str(Path(defectlab.__file__).parents[1])
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert done.stdout.endswith("everywhere\n"), done.stderr


def test_a_misspelt_option_names_the_closest():
    for function in (Folder, build_manifest, check):
        with pytest.raises(OptionError, match=r"has no option 'normal_dri'\. Did you mean 'normal_dir'"):
            function("x", normal_dri="good")
    with pytest.raises(OptionError, match="multiple values for argument 'normal_dir'"):
        Folder("x", "good", normal_dir="good")


def test_folder_takes_anomalibs_arguments_in_their_order(tmp_path: Path):
    from anomalib.data import Folder as Plain

    theirs = list(inspect.signature(Plain).parameters)
    assert list(inspect.signature(Folder).parameters)[: len(theirs)] == theirs
    data = Folder("parts", "train/good", tmp_path, "test/bad")
    assert (data.name, data.root) == ("parts", tmp_path)
    assert (data.options["normal_dir"], data.options["abnormal_dir"]) == ("train/good", "test/bad")


def test_records_hold_what_differs_from_the_defaults():
    made = DataOptions(root=Path("x"), extensions="png", crop_area=(0, 1, 2, 3), augment=["hflip"], name="")
    checked = made.checked()
    assert checked.checked() == checked
    record = checked.to_record()
    assert set(record) == {*ALWAYS_RECORDED, "extensions", "crop_area", "augment"}
    assert (record["root"], record["seed"], record["extensions"]) == ("x", 42, ["png"])
    assert (record["crop_area"], record["augment"]) == ([0, 1, 2, 3], {"hflip": 0.5})


def checked(**changes):
    given_options = {
        "test_split_mode": "from_dir",
        "test_split_ratio": 0.2,
        "val_split_mode": "from_test",
        "val_split_ratio": 0.5,
        "seed": 42,
    }
    return DataOptions(**(given_options | changes)).checked()


def test_enum_members_and_none_are_modes():
    class ValSplitMode(StrEnum):
        FROM_TRAIN = "from_train"

    assert checked(val_split_mode=ValSplitMode.FROM_TRAIN).val_split_mode == "from_train"
    assert checked(val_split_mode=None).val_split_mode == "none"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"val_split_mode": "synthetic"}, "not offered.*abnormal_dir"),
        ({"test_split_mode": "synthetic"}, "not offered"),
        ({"val_split_mode": "from_tests"}, "Did you mean 'from_test'"),
        ({"val_split_ratio": 1.5}, "val_split_ratio"),
        ({"val_split_ratio": 1}, "leave nothing"),
        ({"test_split_ratio": -0.1}, "test_split_ratio"),
        ({"seed": 1.5}, "seed"),
        ({"test_split_mode": "none", "val_split_mode": "same_as_test"}, "needs a test set"),
    ],
)
def test_options_that_cannot_work(changes, words):
    with pytest.raises(OptionError, match=words):
        checked(**changes)


@pytest.mark.parametrize("mode", ["none", "same_as_test"])
def test_nothing_can_be_held_back_without_validation_images_of_their_own(mode: str):
    with pytest.raises(OptionError, match=r"calibration_share=0\.5 holds back"):
        checked(val_split_mode=mode, calibration_share=0.5)
    assert checked(val_split_mode=mode).calibration_share == 0
