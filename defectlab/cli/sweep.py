"""The command that runs many configurations."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from jsonargparse import ArgumentParser

from defectlab.cli.command import Command
from defectlab.utils.config_files import load_yaml
from defectlab_runtime.errors import InputError, OptionError, did_you_mean

OVERRIDE = re.compile(r"[A-Za-z][\w.]*=")
SET = "--set"


def sweep(file: str, plan: bool, refit: Sequence[str] | None, overrides: Sequence[str] | None, **options: Any) -> int:
    """Run many configurations, with the work they share done once; goes on where an earlier call was ended."""
    values = parse_overrides(overrides or [])
    from defectlab.sweeps.sweep import sweep as run_sweep

    result = run_sweep(file, overrides=values, plan_only=plan, refit=refit or (), **options)
    return 1 if result.failed or result.plan.refused or result.checkpoints.problems or result.problems else 0


def _sweep_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--config", dest="file", metavar="FILE", type=str, required=True, help="YAML file of a sweep.")
    parser.add_argument("--plan", action="store_true", help="Show what would be computed, and stop.")
    parser.add_argument("--retry-failed", action="store_true", help="Run what failed earlier again.")
    refitting = "Make checkpoints: BEST (on validation images), BEST:METRIC, or configurations by number or name."
    parser.add_argument("--refit", type=str, nargs="+", metavar="BEST", help=refitting)
    parser.add_argument("--executor", type=str, default="local", help="local, or ray: tasks on a cluster.")
    parser.add_argument("--address", type=str, help="Of a running Ray cluster, such as auto; default starts one here.")
    setting = "An option over the file's, such as model.num_neighbors=1,5,9; bare, or as --model.num_neighbors 1,5,9."
    parser.add_argument(SET, dest="overrides", action="append", metavar="KEY=VALUE", help=setting)


def sweep_arguments(arguments: Sequence[str], known: Iterable[str]) -> list[str]:
    """Return the arguments with every override, `KEY=VALUE` or `--KEY VALUE`, as `--set KEY=VALUE`.

    Args:
        arguments: As typed, `sweep` first.
        known: Options that the command has.

    Raises:
        OptionError: An option that is neither the command's nor followed by a value.

    >>> sweep_arguments(["sweep", "--config", "a.yaml", "seeds=0..4", "--model.name", "padim"], ["--config"])
    ['sweep', '--config', 'a.yaml', '--set', 'seeds=0..4', '--set', 'model.name=padim']
    """
    options, left, result = list(known), list(arguments), []
    while left:
        argument = left.pop(0)
        name, has_value, value = argument.partition("=")
        if name in ("--config", SET) and not has_value:
            result += [argument, *left[:1]]
            del left[:1]
        elif name in options or not argument.startswith("--"):
            result += [SET, argument] if OVERRIDE.match(argument) else [argument]
        else:
            if not has_value and (not left or left[0].startswith("--")):
                raise OptionError(f"sweep has no option '{name}' without a value.{did_you_mean(name, options)}")
            result += [SET, f"{name[2:]}={value if has_value else left.pop(0)}"]
    return result


def parse_overrides(texts: Iterable[str]) -> dict[str, Any]:
    """Parse overrides `KEY=VALUE` into options by dotted name; values are YAML, several joined by commas are choices.

    Raises:
        OptionError: No `KEY=VALUE`, or a value that is no YAML.

    >>> parse_overrides(["model.num_neighbors=1,9", "model.layers=[layer1],[layer2, layer3]", "seeds=0..4"])
    {'model.num_neighbors': [1, 9], 'model.layers': [['layer1'], ['layer2', 'layer3']], 'seeds': '0..4'}
    """
    values = {}
    for text in texts:
        key, is_pair, value = text.partition("=")
        if not is_pair or not OVERRIDE.match(text):
            raise OptionError(f"An option over the file's is KEY=VALUE, such as model.num_neighbors=5; got {text!r}.")
        values[key] = _value(key, value)
    return values


def _value(key: str, text: str) -> Any:
    try:
        found = load_yaml(f"[{text}]")
    except InputError as error:
        raise OptionError(f"{key}: {text[:200]!r}: {error}") from error
    return None if not found else found[0] if len(found) == 1 else found


SWEEP = Command(sweep, _sweep_arguments, sweep_arguments)
