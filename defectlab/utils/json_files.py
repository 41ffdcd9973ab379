"""Reading of JSON files that may be damaged or hostile: in limits, finite numbers."""

import json
import math
from pathlib import Path
from typing import Any

from defectlab.utils.json_object import JsonTypeError

# Far beyond what DefectLab writes: a record of ten thousand images takes 3 MB and is nested 8 levels deep.
MAX_BYTES = 2**28
MAX_DEPTH = 64
MAX_WHOLE_NUMBER = 2**64 - 1  # the largest seed of torch
NUL = "\x00"  # no file name can hold it


def read_json(file: Path) -> Any:
    """Return the data of a JSON file.

    Raises:
        OSError: There is no such file, or it cannot be read.
        JsonTypeError: It is no JSON, nested too deeply or too large, or holds NaN, infinity, a number beyond 64 bits or
            text with NUL; the message begins with the path of the key.
    """
    size = file.stat().st_size
    if size > MAX_BYTES:
        raise JsonTypeError(f"it has {size} bytes, more than DefectLab writes ({MAX_BYTES})")
    return parse_json(file.read_bytes())


def parse_json(content: bytes) -> Any:
    """Return the data of a JSON text in UTF-8; errors as of `read_json`."""
    try:
        data = json.loads(content.decode("utf-8"))
    except RecursionError:
        raise JsonTypeError(f"it is nested deeper than {MAX_DEPTH} levels") from None
    except UnicodeDecodeError as error:
        raise JsonTypeError(f"it is no UTF-8 text (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise JsonTypeError(f"it is no JSON ({error})") from None
    except ValueError:  # of a whole number of more digits than Python converts
        raise JsonTypeError("it holds a number of thousands of digits") from None
    _check(data)
    return data


def _check(data: Any, depth: int = 0) -> None:
    """Check plain data, which is `depth` levels deep in other data.

    Raises:
        JsonTypeError: With the path of the key.
    """
    if isinstance(data, str):
        if NUL in data:
            raise JsonTypeError("holds a NUL character")
    elif isinstance(data, dict | list):
        if depth == MAX_DEPTH:
            raise JsonTypeError(f"is nested deeper than {MAX_DEPTH} levels")
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            try:
                _check(value, depth + 1)
            except JsonTypeError as error:
                raise error.below(key) from None
        if isinstance(data, dict) and any(NUL in key for key in data):
            raise JsonTypeError("has a key with a NUL character")
    elif isinstance(data, float):
        if not math.isfinite(data):
            raise JsonTypeError(f"is {data}, no finite number")
    elif isinstance(data, int) and not -MAX_WHOLE_NUMBER <= data <= MAX_WHOLE_NUMBER:
        raise JsonTypeError("is a number beyond 64 bits")
