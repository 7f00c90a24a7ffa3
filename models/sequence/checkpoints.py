"""The state of a fit as one safetensors file with JSON in its header: no pickle, never half written.

A state is what `state_dict` methods return: nested dicts, lists, tuples, plain values and tensors. The tensors become
the file's tensors, numbered in order; everything around them becomes JSON in the header. The file is put in place by
one rename, so a process that is killed while writing leaves the previous state.

    write_state({"step": 7, "weights": {"w": torch.ones(2)}}, Path("last.safetensors"))
    state = read_state(Path("last.safetensors"))
"""

from __future__ import annotations

import json
import math
import os
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

# JSON knows neither tuples nor keys that are not text nor NaN, so each thing that is not a plain value is written as an
# object of one key, its type: {"tuple": [1, 2]}, {"dict": [[0, "a"]]}, {"tensor": "3"}, {"float": "nan"}.
Json = None | bool | int | float | str | dict[str, Any]


def write_state(state: Any, path: Path) -> None:
    """Write nested dicts, lists, tuples, plain values and tensors into the file `path`.

    An `OrderedDict` is read back as a dict. Tensors are read back on the CPU, without gradients, and no longer share
    memory. There is no fsync: the file survives a killed process, but not a power failure.

    Raises:
        TypeError: a value of another type, naming the place and the type.
    """
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    structure = _encode(state, tensors, "state")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")  # always one name: the rest of a killed write is overwritten
    save_file(tensors, unfinished, metadata={"structure": json.dumps(structure, allow_nan=False)})
    os.replace(unfinished, path)


def read_state(path: Path, device: str = "cpu") -> Any:
    """Read what `write_state` wrote, with tensors on `device`; runs no code from the file.

    Raises:
        DataError: a file that `write_state` did not write.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device=device) as file:
            structure = json.loads((file.metadata() or {})["structure"])
            return _decode(structure, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as error:
        raise DataError(f"{path} is not the state of a fit ({error!r}). Delete it, and the fit starts anew.") from None


def _encode(value: Any, tensors: dict[str, Tensor], place: str) -> Json:
    """The JSON of `value`, its tensors added to `tensors`; `place` is where it is, for errors."""
    from torch import Tensor

    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value  # type: ignore[no-any-return]
    if kind is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = _plain(value, place)
        return {"tensor": name}
    if kind in (list, tuple):
        return {kind.__name__: [_encode(item, tensors, f"{place}[{n}]") for n, item in enumerate(value)]}
    if kind in (dict, OrderedDict):
        pairs = [(key, item, f"{place}[{key!r}]") for key, item in value.items()]
        return {"dict": [[_encode(key, tensors, at), _encode(item, tensors, at)] for key, item, at in pairs]}
    raise TypeError(
        f"{place} is a {kind.__module__}.{kind.__qualname__}, which a checkpoint cannot hold. "
        "Turn it into dicts, lists, tuples, text, numbers or tensors first."
    )


def _plain(tensor: Tensor, place: str) -> Tensor:
    """A dense copy in the CPU's memory that shares no storage: safetensors refuses tensors that share theirs."""
    import torch

    if tensor.layout != torch.strided or tensor.is_quantized:
        raise TypeError(
            f"{place} is a sparse or quantized tensor, which a checkpoint cannot hold. Make it dense first."
        )
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _decode(value: Json, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "tensor":
        return tensors[inner]
    if kind == "float":
        return float(inner)
    if kind == "dict":
        return {_decode(key, tensors): _decode(item, tensors) for key, item in inner}
    items = [_decode(item, tensors) for item in inner]
    return tuple(items) if kind == "tuple" else items
