"""Reading of weights files and checkpoint dicts as plain float32 state dicts, without running pickled code."""

import hashlib
import json
import logging
import math
import pickle
import zipfile
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defectlab.backbones.efficientnet_names import with_timm_names
from defectlab.utils.files import replacing
from defectlab.utils.tensor_archive import DamagedArchiveError, check_archive, is_archive
from defectlab_runtime.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

DIGEST = "tensors_sha256"  # key in the metadata of the safetensors that DefectLab writes
MAX_TENSORS = 100_000  # the largest networks of timm have 3,000
MAX_NAME = 1_000  # characters of a tensor's name; torch's own are below 100
MAX_GROWTH = 16  # bytes of float32 a byte of the file: 4 for 8-bit weights, and twice that where networks share some
SMALL = 1 << 20
MAX_HEADER = 100_000_000  # bytes of a safetensors header; safetensors itself reads no longer one
MAX_DEPTH = 8  # nested wrappers, such as `module.` of parallel training, whose prefixes are removed

_CONTAINERS = ("state_dict", "model", "model_state_dict", "params", "params_ema", "net", "weights")
_PREFIXES = ("module.", "_orig_mod.", "backbone.", "model.", "network.", "encoder.", "feature_extractor.")
_HEADS = ("fc.", "classifier.", "head.", "heads.", "last_linear.")


def container_problem(path: Path, name: str | None = None) -> str | None:
    """Return the visible problem of a weights file (empty, web page, truncated), or None. Needs no torch."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(512)
        if size == 0:
            return "is empty"
        if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
            return "is a web page, not weights (a download that ended on a login or error page)"
        if head.startswith(b"version https://git-lfs"):
            return "is a Git LFS pointer, not the weights themselves (run `git lfs pull`)"
        if (name or path.name).endswith(".safetensors"):
            return _safetensors_problem(head, file.seek(0) or file.read, size)
    return None


def _safetensors_problem(head: bytes, read: Any, size: int) -> str | None:
    # Layout: 8 bytes little-endian length of a JSON header, the header, then the tensors.
    length = int.from_bytes(head[:8], "little")
    if size < 8 or length > min(size - 8, MAX_HEADER):
        return "is no whole safetensors file (its header is cut or damaged)"
    try:
        header = json.loads(read(8 + length)[8:])
        end = max((value["data_offsets"][1] for key, value in header.items() if key != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return "is no safetensors file (its header is damaged)"
    if 8 + length + end != size:
        return f"is cut: {size} of {8 + length + end} bytes are there"
    return None


def read_weights(path: Path, *, verify: bool = True) -> "dict[str, Tensor]":
    """Return the state dict in a `.pth`, `.pt` or `.safetensors` file: float32, on the CPU, wrapper prefixes removed.

    Raises:
        WeightsError: Empty, cut, no weights file, one that would have to run pickled code, or one whose bytes are not
            those of the checksums in it (`verify=False` does not compare them).

    """
    problem = container_problem(path)
    if problem:
        raise WeightsError(f"{path} {problem}. Copy or download it again.")
    if path.suffix != ".safetensors" and is_archive(path):
        if _is_program(path):
            raise WeightsError(
                f"{path} is a TorchScript program, not only tensors; loading it would run its code. If you trust the "
                "file, take the state dict out once: `torch.save(torch.jit.load(path).state_dict(), new)`."
            )
        try:
            if verify:
                check_archive(path)
        except DamagedArchiveError as error:
            raise WeightsError(str(error)) from error
    loaded = _load(path)
    if verify and path.suffix == ".safetensors":
        _check_digest(path, loaded)
    return unwrap(loaded, str(path), max_bytes=MAX_GROWTH * path.stat().st_size + SMALL)


def _is_program(path: Path) -> bool:
    """Return whether an archive of torch is one of `torch.jit.save`, which holds code beside the tensors."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.count("/") == 1 and name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):  # damaged, which its readers say
        return False


def write_safetensors(state: "Mapping[str, Tensor]", path: Path, facts: Mapping[str, str]) -> str:
    """Write tensors as safetensors, atomically, with their digest and `facts` as metadata; return the file's sha256."""
    from safetensors.torch import save

    from defectlab.backbones.backbone import tensors_sha256

    content = save(dict(state), metadata={**facts, DIGEST: tensors_sha256(state)})
    with replacing(path) as partial:
        partial.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _check_digest(path: Path, state: "Mapping[str, Tensor]") -> None:
    from safetensors import safe_open

    from defectlab.backbones.backbone import tensors_sha256

    with safe_open(path, "pt") as file:
        digest = (file.metadata() or {}).get(DIGEST)
    if digest is not None and digest != tensors_sha256(state):
        raise WeightsError(f"{path} is damaged: its tensors are not those of its digest. Copy it again.")


def _load(path: Path) -> Any:
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        zipped = is_archive(path)
        with path.open("rb") as file:
            head = file.read(4)
        if head and not zipped and not head.startswith(b"\x80"):
            raise WeightsError(
                f"{path} is no weights file of PyTorch: it begins with {head!r}. Give a .pth or .safetensors."
            )
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped or None)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error) or "Unsupported" in str(error):
            raise WeightsError(
                f"{path} holds pickled Python objects, not only tensors; loading them would run their code. If you "
                "trust the file, take the state dict out once: `loaded = torch.load(path, weights_only=False)`, then "
                "`torch.save(loaded.state_dict(), new)` (a module) or `torch.save(loaded['state_dict'], new)` (a dict)."
            ) from error
        raise WeightsError(_damaged(path, error)) from error
    except Exception as error:  # torch and safetensors raise a dozen unrelated types for a damaged file
        raise WeightsError(_damaged(path, error)) from error


def _damaged(path: Path, error: Exception) -> str:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"{path} cannot be read as weights: it is cut, damaged or of another kind ({first[:200]}). Copy it again."


def unwrap(loaded: Any, where: str, *, max_bytes: float = math.inf) -> "dict[str, Tensor]":
    """Return the plain state dict inside a checkpoint dict: float32, prefixes such as `module.` removed, timm's names.

    `max_bytes` limits what all tensors together may take.

    Raises:
        WeightsError: No tensors by name in it, or values that are not finite.

    """
    import torch

    state = loaded
    for _ in range(3):
        key = next((k for k in _CONTAINERS if isinstance(state, Mapping) and isinstance(state.get(k), Mapping)), None)
        if key is None:
            break
        logger.info("%s: taking the weights under '%s'", where, key)
        state = state[key]
    items = state.items() if isinstance(state, Mapping) else ()
    tensors = {key: value for key, value in items if isinstance(key, str) and torch.is_tensor(value)}
    if not tensors:
        inside = (
            f"keys {', '.join(map(_short, islice(state, 8)))}" if isinstance(state, Mapping) else type(state).__name__
        )
        raise WeightsError(
            f"{where} holds no tensors by name ({inside}). Expected: a state dict, or one under 'state_dict'."
        )
    _check_sizes(tensors, where, max_bytes)
    state = _float32(with_timm_names(_without_prefixes(tensors, where), where), where)
    bad = [key for key, value in state.items() if value.is_floating_point() and not _finite(value)]
    if bad:
        raise WeightsError(f"{where} holds values that are not finite in {', '.join(bad[:5])}: the file is damaged.")
    return state


def tensor_problem(tensor: "Tensor") -> str | None:
    """Return what keeps a loaded tensor from being weights, or None: they are plain numbers, each in the file."""
    import torch

    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        return "is sparse, quantised or without values"
    if tensor.is_complex():
        return "holds complex numbers"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"of shape {tuple(tensor.shape)} has only {tensor.untyped_storage().nbytes()} bytes of values"
    return None


def _check_sizes(tensors: "Mapping[str, Tensor]", where: str, max_bytes: float) -> None:
    """Refuse what a few bytes of a file can claim to be, before any of it is copied."""
    problem = None
    if len(tensors) > MAX_TENSORS:
        problem = f"{len(tensors)} tensors, more than the {MAX_TENSORS} that are read"
    elif long := next((key for key in tensors if len(key) > MAX_NAME), None):
        problem = f"a name of {len(long)} characters, more than the {MAX_NAME} that are read"
    else:
        odd = ((key, tensor_problem(tensor)) for key, tensor in tensors.items())
        problem = next((f"a tensor {key!r} that {why}" for key, why in odd if why), None)
    if problem is None and (total := 4 * sum(tensor.numel() for tensor in tensors.values())) > max_bytes:
        problem = f"{total} bytes of tensors that share the values of a far smaller file"
    if problem:
        raise WeightsError(f"{where} holds {problem}. Save its state dict anew, with dense tensors of their own.")


def _short(key: object) -> str:
    return key[:MAX_NAME] if isinstance(key, str) else type(key).__name__


def _finite(tensor: "Tensor") -> bool:
    import torch

    # A sum is four times faster than looking at each value, and finite for all but absurd weights.
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())


def _without_prefixes(state: "dict[str, Tensor]", where: str) -> "dict[str, Tensor]":
    for _ in range(MAX_DEPTH):
        stripped = False
        for prefix in _PREFIXES:
            inside = [key for key in state if key.startswith(prefix)]
            outside = [key for key in state if not key.startswith(prefix)]
            # A classifier often stands beside the wrapped backbone; anything else means this is no wrapper.
            if inside and all(key.startswith(_HEADS) for key in outside):
                logger.info("%s: prefix '%s' removed from %d keys", where, prefix, len(inside))
                state = {key.removeprefix(prefix): value for key, value in state.items()}
                stripped = True
        if not stripped:
            break
    return state


def _float32(state: "dict[str, Tensor]", where: str) -> "dict[str, Tensor]":
    import torch

    kinds = sorted({str(v.dtype).removeprefix("torch.") for v in state.values() if v.is_floating_point()} - {"float32"})
    if kinds:
        logger.info("%s: %s cast to float32", where, ", ".join(kinds))
    # A copy, so that a memory-mapped file may be replaced while the model lives.
    return {
        k: v.detach().to("cpu", torch.float32 if v.is_floating_point() else v.dtype, copy=True)
        for k, v in state.items()
    }
