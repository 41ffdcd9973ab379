import json
import pickle
from pathlib import Path

import pytest
import torch
from helpers.malicious import CONTAINERS, KINDS
from safetensors.torch import save_file

from defectlab.backbones.state_dicts import container_problem, read_weights, unwrap, write_safetensors
from defectlab_runtime.errors import WeightsError

STATE = {"conv1.weight": torch.arange(6.0).reshape(2, 3), "bn1.num_batches_tracked": torch.tensor(4)}


def _same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize("container", ["state_dict", "model", "model_state_dict", "params"])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "model.", "module.backbone."])
def test_containers_and_prefixes(tmp_path: Path, container: str, prefix: str) -> None:
    path = tmp_path / "веса.pth"
    torch.save({"epoch": 3, container: {f"{prefix}{key}": value for key, value in STATE.items()}}, path)
    assert _same(read_weights(path), STATE)


def test_a_head_beside_a_wrapped_backbone() -> None:
    state = unwrap({"backbone.conv1.weight": torch.ones(2), "fc.weight": torch.ones(3)}, "x")
    assert set(state) == {"conv1.weight", "fc.weight"}


def test_a_prefix_of_one_part_is_no_wrapper() -> None:
    keys = {"encoder.conv.weight": torch.ones(2), "decoder.conv.weight": torch.ones(2)}
    assert set(unwrap(keys, "x")) == set(keys)


def test_old_format_and_safetensors(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(STATE, tmp_path / "new.safetensors")
    assert _same(read_weights(tmp_path / "old.pt"), STATE)
    assert _same(read_weights(tmp_path / "new.safetensors"), STATE)


def test_half_precision_becomes_float32_and_counters_stay_integers(tmp_path: Path) -> None:
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in STATE.items()}, tmp_path / "half.pth")
    state = read_weights(tmp_path / "half.pth")
    assert (state["conv1.weight"].dtype, state["bn1.num_batches_tracked"].dtype) == (torch.float32, torch.int64)


def test_the_result_does_not_change_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(STATE, path)
    state = read_weights(path)
    path.write_bytes(b"\0" * path.stat().st_size)
    assert _same(state, STATE)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(("content", "says"), [(b"", "empty"), (b"<!DOCTYPE html><html>", "web page")])
def test_what_is_visibly_no_weights_file(tmp_path: Path, suffix: str, content: bytes, says: str) -> None:
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=says):
        read_weights(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_pth(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "cut.pth"
    torch.save({"w": torch.zeros(1000)}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(WeightsError, match="cut, damaged"):
        read_weights(path)


def test_truncated_safetensors_says_how_much_is_there(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    save_file({"w": torch.zeros(1000)}, path)
    whole = path.stat().st_size
    assert container_problem(path) is None
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=f"{whole - 100} of {whole} bytes"):
        read_weights(path)


def test_pickled_code_is_never_run(tmp_path: Path) -> None:
    path = tmp_path / "module.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(WeightsError, match=r"pickled Python objects(.|\n)*torch.save"):
        read_weights(path)


@pytest.mark.parametrize(("value", "says"), [({"epoch": 1}, "epoch"), ([1, 2], "list"), ({}, "no tensors")])
def test_no_tensors_inside(value: object, says: str) -> None:
    with pytest.raises(WeightsError, match=says):
        unwrap(value, "x.pth")


def test_values_that_are_not_finite_are_named() -> None:
    with pytest.raises(WeightsError, match=r"layer1\.weight"):
        unwrap({"layer1.weight": torch.tensor([1.0, float("nan")])}, "x.pth")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_said_to_run_code_would(tmp_path: Path, kind: str) -> None:
    pickle.loads(pickle.dumps(KINDS[kind](tmp_path / "mark")))
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_of_pickle_runs_in_any_container(tmp_path: Path, kind: str, container: str) -> None:
    suffix, write = CONTAINERS[container]
    write({**STATE, "layer1.weight": KINDS[kind](tmp_path / "mark")}, tmp_path / f"weights{suffix}")
    with pytest.raises(WeightsError):
        read_weights(tmp_path / f"weights{suffix}")
    assert not (tmp_path / "mark").exists()


ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "header",
    [
        {"w": {**ONE, "shape": [1 << 40]}},
        {"w": {**ONE, "data_offsets": [0, 1 << 40]}},
        {"w": {**ONE, "data_offsets": [4, 8]}},
        {"w": {**ONE, "data_offsets": [8, 0]}},
        {"w": {**ONE, "data_offsets": [-8, 8]}},
        {"w": {**ONE, "data_offsets": []}},
        {"w": {**ONE, "dtype": "F99"}},
        {"w": ONE, "v": ONE},
        {"w": [1, 2]},
        [1, 2],
        "[" * 100_000,
    ],
)
def test_a_lying_header_of_safetensors_is_refused(tmp_path: Path, header: object) -> None:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(WeightsError, match="Copy"):
        read_weights(tmp_path / "a.safetensors")


def test_safetensors_of_our_own_carry_a_digest(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(STATE, path, {"made_by": "test"})
    assert _same(read_weights(path), STATE)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="not those of its digest"):
        read_weights(path)
    assert not _same(read_weights(path, verify=False), STATE)


@pytest.mark.parametrize("verify", [True, False])
def test_a_torchscript_program_is_no_damaged_file(tmp_path: Path, verify: bool) -> None:
    path = tmp_path / "program.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 1), torch.zeros(1, 2)), path)
    with pytest.raises(WeightsError, match=r"is a TorchScript program.*torch\.jit\.load\(path\)\.state_dict"):
        read_weights(path, verify=verify)
    torch.save(torch.jit.load(path).state_dict(), tmp_path / "taken_out.pth")
    assert set(read_weights(tmp_path / "taken_out.pth")) == {"weight", "bias"}


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_far_larger_than_their_file_are_refused_before_they_are_copied(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "bomb.pth"
    torch.save({"w": torch.zeros(1).expand(1 << 40)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="has only 4 bytes of values"):
        read_weights(path)
    shared = torch.zeros(1 << 14)
    torch.save({f"w{i}": shared[i:] for i in range(2000)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="share the values"):
        read_weights(path)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"w": torch.eye(3).to_sparse()}, "sparse"),
        ({"w": torch.zeros(2, dtype=torch.complex64)}, "complex"),
        ({"w": torch.zeros(2, device="meta")}, "without values"),
        ({"module." * 100_000 + "w": torch.zeros(2)}, "a name of 700001 characters"),
        ({((("x" * 9,) * 9,) * 9,) * 9: 1}, "keys tuple"),
    ],
)
def test_what_no_network_has_is_refused(state: dict[object, object], says: str) -> None:
    with pytest.raises(WeightsError, match=says):
        unwrap(state, "x.pth")
