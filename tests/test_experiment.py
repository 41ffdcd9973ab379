import inspect
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import torchvision
import yaml
from helpers.experiments import SMALL, experiment

from defectlab import Folder
from defectlab.data.manifest.options import DataOptions
from defectlab.experiment import Experiment, build, run
from defectlab.results.run.run import find_runs
from defectlab.sweeps.run_many import run_many
from defectlab_runtime.errors import InputError, OptionError


def test_yaml_both_ways(tmp_path: Path, parts: Path):
    first = experiment(parts, seed=7, name="my run")
    assert Experiment.from_yaml(first.to_yaml(tmp_path / "a.yaml")) == first


def test_only_root_and_model_name_are_required():
    assert Experiment.from_dict({"data": {"root": "data/bottle"}, "model": {"name": "padim"}}).seed == 42
    with pytest.raises(OptionError, match=r"data\.root"):
        Experiment.from_dict({"model": {"name": "padim"}})
    with pytest.raises(OptionError, match=r"model\.name"):
        Experiment.from_dict({"data": {"root": "x"}})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"modle": {}}, "Did you mean 'model'"),
        ({"data": {"rot": "x"}}, "Section 'data' has no option 'rot'. Did you mean 'root'"),
        ({"backbone": "resnet18"}, "backbone must be a mapping"),
        ({"data": {"root": "x"}, "model": {"name": "padim"}, "evaluation": {"pixel_size": "large"}}, "pixel_size"),
    ],
)
def test_unknown_keys_name_the_closest(data: dict, message: str):
    with pytest.raises(OptionError, match=message):
        Experiment.from_dict(data)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"model": SMALL["model"] | {"name": "padin"}}, "Did you mean 'padim'"),
        ({"model": SMALL["model"] | {"n_fetures": 3}}, "Did you mean 'n_features'"),
        ({"trainer": {"max_epoch": 3}}, "Did you mean 'max_epochs'"),
        (
            {"trainer": {"gradient_clip_val": "x"}},
            "trainer.gradient_clip_val must be a whole number or a number, got 'x'",
        ),
        ({"trainer": {"max_time": "soon"}}, "Section 'trainer' .max_time. cannot work"),
        ({"trainer": {"name": "x"}}, "trainer.name is no option of the trainer"),
        ({"trainer": {True: 1}}, "trainer has an option that is no text: True"),
        ({"model": SMALL["model"] | {"n_features": float("nan")}}, "model.n_features is nan"),
        ({"model": SMALL["model"] | {"layers": 10**50}}, "model.layers is a whole number of 167 bits"),
        ({"trainer": {"enable_progress_bar": "no"}}, "enable_progress_bar must be true or false, got 'no'"),
        ({"model": {"name": "draem", "enable_sspcab": "False"}, "backbone": {}}, "enable_sspcab must be true or false"),
        ({"model": SMALL["model"] | {"layers": "layer1,layer2"}}, "layers must be a list"),
        ({"backbone": {"name": "resnet81", "weights": "random"}}, "resnet18"),
    ],
)
def test_values_are_checked_before_any_image_is_read(parts: Path, sections: dict, message: str):
    with pytest.raises(InputError, match=message):
        build(experiment(parts / "not there", **sections))


@pytest.mark.row("3.4")
def test_the_data_section_is_what_folder_takes():
    names = {item.name for item in fields(DataOptions)}
    taken = set(inspect.signature(Folder.__init__).parameters)
    assert names <= taken
    # what YAML cannot write, and anomalib's second name for test_split_ratio
    assert taken - names == {"self", "normal_split_ratio"} | {n for n in taken if n.endswith("augmentations")}


def test_run_gives_the_finished_record(parts: Path):
    finished = run(experiment(parts))
    assert finished.status == "finished"
    written = finished.record.experiment.to_dict()
    again = Experiment.from_dict({**written, "backbone": SMALL["backbone"]})
    assert run(again).record.metrics == finished.record.metrics


def test_run_many_checks_all_before_it_trains_the_first(parts: Path, caplog: pytest.LogCaptureFixture):
    wrong = experiment(parts, model=SMALL["model"] | {"n_features": 1000})
    with pytest.raises(OptionError, match="n_features"):
        run_many([experiment(parts), experiment(parts, name="again"), wrong])
    assert not find_runs()
    assert caplog.text.count("RANDOM") == 1  # one backbone is loaded for all the checks


def test_weights_are_found_by_path_in_the_project(parts: Path, own_project: Path):
    (own_project / "weights").mkdir()
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), own_project / "weights/mine.pth")
    backbone = {"name": "resnet18", "weights": "weights/mine.pth"}
    record = run(experiment(parts, backbone=backbone)).record
    assert record.backbone.source == "weights/mine.pth"
    assert record.experiment.backbone == backbone


def test_a_yaml_file_that_is_none(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("a: [")
    (tmp_path / "b.yaml").write_text("- 1")
    for name, message in (("a.yaml", "valid YAML"), ("b.yaml", "mapping"), ("c.yaml", "no file")):
        with pytest.raises(InputError, match=message):
            Experiment.from_yaml(tmp_path / name)


def test_the_design_pages_yaml(tmp_path: Path):
    text = """
name: null
seed: 42
data: {root: data/bottle, normal_dir: train/good, normal_test_dir: test/good, abnormal_dir: [test/broken_large],
       mask_dir: [ground_truth/broken_large], train_batch_size: 10, eval_batch_size: 10, num_workers: 2}
backbone: {name: resnet18, weights: weights/resnet18.pth}
model: {name: patchcore, layers: [layer2, layer3], coreset_sampling_ratio: 0.1, num_neighbors: 5,
        image_size: [256, 256], center_crop: null}
evaluation: {pixel_size: input}
trainer: {max_epochs: 1, accelerator: auto}
"""
    assert Experiment.from_dict(yaml.safe_load(text)).model["num_neighbors"] == 5
