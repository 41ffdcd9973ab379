"""Each key of run.json: missing, of another type, optional."""

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.runs import parts_of_a_record

from defectlab.results.run.record import RecordError, read_record


def removals(data: dict, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every key of a record that a field without a default holds."""
    for key, value in data.items():
        if isinstance(value, dict) and key not in FREE:
            yield from removals(value, (*path, key))
        yield (*path, key)


FREE = ("facts", "counts", "data", "model", "trainer", "metrics", "thresholds", "timings")


OPTIONAL = {("experiment", "name"), ("experiment", "evaluation"), ("preprocessing", "hash"), ("process", "born")}


def whole() -> dict:
    """A record with nothing in it but what is required, and `OPTIONAL`."""
    process = {"pid": 1, "host": "here", "born": None, "started": "2026-01-01T00:00:00+00:00"}
    head = {"run_id": "0123456789ab", "name": "one", "status": "running", "error": None, "facts": {}}
    data = {**head, "process": process, **parts_of_a_record()}
    del data["experiment"]["backbone"]["name"], data["experiment"]["backbone"]["weights"]
    del data["experiment"]["evaluation"]["pixel_size"]
    return data


@pytest.mark.parametrize("path", sorted(set(removals(whole())) - OPTIONAL), ids=".".join)
def test_each_key_that_is_missing_or_of_another_type_is_named(tmp_path: Path, path: tuple[str, ...]):
    for problem in ("is missing", "is "):
        data = whole()
        holder = functools.reduce(lambda part, key: part[key], path[:-1], data)
        value = holder.pop(path[-1])
        if problem == "is ":
            holder[path[-1]] = "text" if isinstance(value, list) else []
        (tmp_path / "run.json").write_text(json.dumps(data))
        with pytest.raises(RecordError, match=rf"run\.json is damaged: {re.escape('.'.join(path))} {problem}"):
            read_record(tmp_path)


def test_optional_keys_may_be_missing(tmp_path: Path):
    for path in OPTIONAL:
        data = whole()
        del data[path[0]][path[1]]
        (tmp_path / "run.json").write_text(json.dumps(data))
        assert read_record(tmp_path).to_dict() == {"version": 1} | data
