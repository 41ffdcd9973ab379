"""Settings of experiments and sweeps: damaged text, wrong values, bombs of aliases, deep nests, odd keys and tags."""

import random
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from defectlab.cli.main import main
from defectlab.cli.sweep import parse_overrides
from defectlab.experiment import ComponentCache, Experiment, build
from defectlab.sweeps.config import SweepConfig, with_overrides
from defectlab.sweeps.search_space import space_size
from defectlab.utils.config_files import as_yaml, load_yaml, read_yaml
from defectlab_runtime.errors import InputError
from tests.fuzz.mutations import damage
from tests.fuzz.target import Target
from tests.fuzz.trees import damage_tree, places

GOOD = {
    "experiment_small": "data: {root: data/bottle}\nmodel: {name: padim}\n",
    "experiment_large": """\
name: wells
seed: 7
data: {root: data/wells, normal_dir: train/good, abnormal_dir: [a, b], mask_dir: [c, d], extensions: [.png],
  train_batch_size: 4, val_split_mode: from_train, val_split_ratio: 0.2, seed: 3, crop_area: [0, 0, 10, 10],
  augment: {hflip: 0.5, rotate: 10}, passes: 2, tiling: {image_size: [1024, 1024], overlap: 0.25}, group: '(\\d+)'}
backbone: {name: resnet18, weights: random}
model: {name: patchcore, layers: [layer2, layer3], coreset_sampling_ratio: 1e-1, image_size: [64, 64]}
evaluation: {pixel_size: [64, 64], aupimo: false}
trainer: {max_epochs: 1, accelerator: cpu}
loggers: [csv, {name: mlflow, project: wells}]
repeat: 2
categories: [all]
groups: {small: [a, b]}
""",
    "sweep_grid": """\
name: compared
data: {root: data/bottle}
backbone: {name: resnet18}
seeds: 0..2
cache_gb: 4
cache_dtype: float16
checkpoints: best
grid:
  - model.name: patchcore
    model.layers: [[layer2, layer3], [layer2]]
    model.coreset_sampling_ratio: [0.01, 0.1]
    model.num_neighbors: {from: 1, to: 9, step: 2}
    model.image_size: [[64, 64], [32, 32]]
  - {model.name: [padim, cflow], trainer.max_epochs: {choices: [1, 2]}}
""",
    "sweep_search": """\
datasets: {root: data/mvtec, categories: textures}
groups: {round: [bottle, capsule]}
search: {strategy: optuna, trials: 20, seed: 0, objective: image_F1Score, direction: maximize,
  pruning: {startup_trials: 2, warmup_epochs: 1}}
vary_split: true
loggers: [tensorboard]
ray: {cpus: 2}
grid: {model.name: stfpm, trainer.max_epochs: {from: 1, to: 9, step: 1, log: true}, model.lr: {from: 1e-4, to: 1e-2}}
""",
}
SNIPPETS = (
    "0x" + "f" * 5000, "9" * 6000, "1e999", "-.inf", ".NaN", "1:30:00", "0o17", "2024-02-31", "2024-13-01 99:00:00",
    "!!python/object/apply:os.system [x]", "!!binary x", "!!float abc", "!!int ''", "!!set {a, b}", "!!omap [a: 1]",
    "!foo bar", "!!timestamp x", "? [a, b]\n: 1", "*missing", "&a [*a]", "&a {b: *a}", "{a: 1, a: 2}", "{[a]: 1}",
    "<<: 3", "{<<: [1, 2]}", "{null: 1}", "=", "!!bool x", "|2\n x", "\x00", "\u2028", "\ufeff", "!!pairs [1]",
    "!!str [a]", "!!map 3", "!!seq 3", "!!null x", "!!int 0b", "!!int 1:", "!!float 1:", "+_", "0b_", "_:_", "- - -",
    "[1" * 300, "{a: " * 300, "- " * 3000, "? " * 300, "!!int [1]", "!!bool {}", "&a " * 3, "@", "`", "%YAML 9.9",
    "'" * 99, "---\n---",
)  # fmt: skip

MODELS: dict[str, dict[str, Any]] = {
    "padim": {"layers": ["layer1", "layer2"], "n_features": 10, "image_size": [32, 32]},
    "patchcore": {
        **{"layers": ["layer2"], "coreset_sampling_ratio": 0.1, "num_neighbors": 3, "image_size": [64, 64]},
        **{"center_crop": [32, 32], "keep_aspect": False},
    },
    "cflow": {"layers": ["layer2"], "fiber_batch_size": 8, "lr": 1e-4, "image_size": 64},
    "stfpm": {"layers": ["layer1"], "image_size": 64},
    "linear_vae": {"image_size": [32, 32]},
}
TRAINER: list[tuple[str, Any]] = [
    *{"max_epochs": 1, "accelerator": "cpu", "limit_train_batches": 1.0, "max_steps": -1, "devices": 1}.items(),
    *{"log_every_n_steps": 5, "gradient_clip_val": 0.5, "max_time": "00:01:00:00", "precision": "32"}.items(),
    *{"check_val_every_n_epoch": 1, "accumulate_grad_batches": 1, "deterministic": False, "patience": 3}.items(),
    *{"monitor": "image_AUROC", "keep": "best", "val_check_interval": 1.0, "num_sanity_val_steps": 0}.items(),
]
COMPONENTS = ComponentCache()


def prepare(good: Path) -> None:
    for name, text in GOOD.items():
        (good / f"{name}.yaml").write_text(text, encoding="utf-8")


def warm_up() -> None:
    """Import anomalib, Lightning and the parser of all commands, which takes some ten seconds."""
    for name in sorted(MODELS):
        _build_settings(name, {"model": {"name": name, **MODELS[name]}, "trainer": dict(TRAINER)})
    _run_command("train", "--help")


def attack(random: random.Random, good: Path, work: Path) -> None:
    source = random.choice(sorted(good.iterdir()))
    path = work / source.name
    if random.random() < 0.1:
        _override(random, source)
        return
    if source.name.startswith("experiment") and random.random() < 0.2:
        _build(random)
        return
    path.write_bytes(_hostile(random, source.read_text(encoding="utf-8")))
    if source.name.startswith("experiment") and random.random() < 0.05:  # slow: it builds the parser of all commands
        _run_command("train", "--config", str(path), "--print_config")
    _read(path)


def _build(random: random.Random) -> None:
    """Build what damaged options of a model and of the trainer describe: all are checked before a run begins."""
    name = random.choice(sorted(MODELS))
    sections = {"model": {"name": name, "seed": 3, **MODELS[name]}, "trainer": dict(random.sample(TRAINER, 4))}
    damaged = random.choice(sorted(sections))
    sections[damaged] = damage_tree(random, sections[damaged])
    _build_settings(name, sections)


def _build_settings(name: str, sections: dict[str, Any]) -> None:
    backbone = {} if name == "linear_vae" else {"name": "resnet18", "weights": "random"}
    settings = {"data": {"root": "data/bottle"}, "backbone": backbone, **sections}
    build(Experiment.from_dict(load_yaml(_dumped(settings).decode())), COMPONENTS)


def _read(path: Path) -> None:
    if path.name.startswith("experiment"):
        experiment = Experiment.from_yaml(path)
        experiment.data.checked()
        assert Experiment.from_dict(load_yaml(as_yaml(experiment.to_dict()))) == experiment
        return
    _expand(SweepConfig.from_yaml(path))


def _expand(settings: SweepConfig) -> None:
    space_size(settings.grid)
    if settings.search is None and settings.datasets is None:
        for data in islice(settings.expanded(), 50):
            Experiment.from_dict(data)


def _run_command(*arguments: str) -> None:
    with suppress(SystemExit):  # of --help
        if main(arguments) == 2:
            raise InputError("refused by the command")


def _override(random: random.Random, source: Path) -> None:
    """Give a good file an option of the command line with a hostile value."""
    tree = read_yaml(source)
    key = ".".join(map(str, random.choice(places(tree))[:2])) or "seeds"
    value = random.choice((*SNIPPETS, _bomb(random), str(random.choice(places(tree))), "1,,2", "a: b", "]["))
    if source.name.startswith("experiment") and random.random() < 0.2:
        _run_command("train", "--config", str(source), f"--{key}={value}", "--print_config")
    given = parse_overrides([f"{key}={value}"])
    if source.name.startswith("experiment"):
        Experiment.from_dict({**tree, **given})
    else:
        _expand(SweepConfig.from_dict(with_overrides(tree, given)))


def _hostile(random: random.Random, text: str) -> bytes:
    kind = random.randrange(10)
    if kind < 5:
        return _dumped(damage_tree(random, load_yaml(text)))
    if kind == 5:
        return damage(random, text.encode())
    if kind == 6:
        values = [place for place in range(len(text)) if text[place] in ",:[{"]
        start = random.choice(values) + 1
        return (text[:start] + " " + random.choice(SNIPPETS) + text[start:]).encode()
    if kind == 7:
        replaced = random.choice(("padim", "patchcore", "resnet18", "data/bottle", "7", "2"))
        return text.replace(replaced, _bomb(random)).encode()
    if kind == 8:
        return (random.choice(SNIPPETS) + "\n" + text).encode() if random.random() < 0.5 else _bomb(random).encode()
    return text.encode(random.choice(("utf-16", "utf-32", "utf-8-sig", "cp037")))


def _dumped(tree: Any) -> bytes:
    try:
        return yaml.dump(tree, Dumper=yaml.Dumper, allow_unicode=True).encode("utf-8", "surrogatepass")
    except (RecursionError, ValueError):
        return repr(tree).encode("utf-8", "surrogatepass")  # flow style, near enough


def _bomb(random: random.Random) -> str:
    depth = random.choice((8, 100, 3000, 100_000))
    many = random.choice((5, 9, 30))
    nine = [", ".join([f"*a{n}"] * 9) for n in range(many)]
    lists = "[&a0 [x, x, x]" + "".join(f", &a{n + 1} [{nine[n]}]" for n in range(many)) + "]"
    merges = "a0: &a0 {a: 1, b: 2, c: 3}\n" + "".join(f"a{n + 1}: &a{n + 1} {{<<: [{nine[n]}]}}\n" for n in range(many))
    texts = (
        *("[" * depth, "[" * depth + "]" * depth, "{a: " * depth, "- " * depth, "? " * depth),
        "".join(" " * n + "a:\n" for n in range(min(depth, 900))),
        *(lists, merges, "{" + merges.replace("\n", ", ") + "}"),
        *("x" * 3_000_000, "a: 1\n" * (depth // 10 + 1), "".join(f"k{n}: {n}\n" for n in range(depth))),
    )
    return random.choice(texts)


TARGET = Target("yaml", prepare, attack, warm_up=warm_up)
