"""Which settings make another experiment, and how runs are named."""

import json

from defectlab.results.run.identity import differing_suffix, experiment_facts, experiment_id, readable_name


def test_identity_ignores_where_images_lie_and_how_fast_they_are_read():
    experiment = {
        "seed": 42,
        "data": {"root": "/a", "num_workers": 2, "eval_batch_size": 8, "train_batch_size": 10, "normal_dir": "good"},
        "model": {"name": "padim", "layers": ["layer1"]},
        "backbone": {"name": "resnet18", "weights": "x.pth"},
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
    }
    moved = json.loads(json.dumps(experiment))
    moved["data"] |= {"root": "/b", "num_workers": 0, "eval_batch_size": 1}
    moved["trainer"]["accelerator"] = "gpu"
    identity = experiment_id(experiment_facts(experiment, "m", "b"))
    assert experiment_id(experiment_facts(moved, "m", "b")) == identity
    assert experiment_id(experiment_facts(moved, "other images", "b")) != identity
    moved["model"]["layers"] = ["layer2"]
    assert experiment_id(experiment_facts(moved, "m", "b")) != identity


def test_names_stay_file_names():
    assert readable_name("padim", "timm/resnet18", {"layers": ["a"], "n_features": 5}, 1) == "timm-resnet18_a_5"
    many = {f"model.option{number}": number for number in range(9)}
    assert differing_suffix(many, {}) == f"_{experiment_id(many)[:6]}"
