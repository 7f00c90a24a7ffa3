"""What is written into a checkpoint is what is read from it, to the bit, and a kill never leaves half of one."""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from features.errors import DataError
from models.sequence import checkpoints
from models.sequence.checkpoints import read_state, write_state

DTYPES = [
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
]
shapes = st.lists(st.integers(0, 3), max_size=3)
tensors = st.builds(
    lambda shape, dtype, seed: (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 200).to(dtype),
    shapes,
    st.sampled_from(DTYPES),
    st.integers(0, 99),
)
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
keys = st.text() | st.integers() | st.booleans() | st.none() | st.tuples(st.integers(), st.text())
states = st.recursive(
    plain | tensors,
    lambda inner: (
        st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple) | st.dictionaries(keys, inner, max_size=4)
    ),
    max_leaves=12,
)


def same(first: Any, other: Any) -> bool:
    """The same types and the same bits, whatever the order in which a dict was filled."""
    if type(first) is not type(other):
        return False
    if isinstance(first, torch.Tensor):
        return first.dtype == other.dtype and first.shape == other.shape and torch.equal(first, other)
    if isinstance(first, float):
        return (math.isnan(first) and math.isnan(other)) or struct.pack("d", first) == struct.pack("d", other)
    if isinstance(first, (list, tuple)):
        return len(first) == len(other) and all(map(same, first, other))
    if isinstance(first, dict):
        return same(list(first), list(other)) and all(same(first[key], other[key]) for key in first)
    return bool(first == other)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(state=states)
def test_what_is_read_is_what_was_written(tmp_path: Path, state: Any) -> None:
    write_state(state, tmp_path / "state.safetensors")
    assert same(read_state(tmp_path / "state.safetensors"), state)


def test_the_state_of_an_optimizer_keeps_its_numbered_keys(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    write_state(optimizer.state_dict(), tmp_path / "a.safetensors")
    assert same(read_state(tmp_path / "a.safetensors"), optimizer.state_dict())


def test_tensors_that_share_memory_or_are_views_are_written_apart(tmp_path: Path) -> None:
    table = torch.arange(6.0).reshape(2, 3)
    write_state({"tied": [table, table], "turned": table.T, "weight": torch.nn.Parameter(table)}, tmp_path / "a")
    result = read_state(tmp_path / "a")
    assert same(result["tied"], [table, table])
    assert same(result["turned"], table.T.contiguous())
    assert type(result["weight"]) is torch.Tensor


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({1, 2}, r"state\['curve'\]\[1\] is a builtins\.set"),
        (object(), r"state\['curve'\]\[1\] is a builtins\.object"),
        (torch.float32, r"state\['curve'\]\[1\] is a torch\.dtype"),
        (torch.eye(2).to_sparse(), "sparse"),
    ],
)
def test_what_cannot_be_written_is_named(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        write_state({"curve": [1, value]}, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_kill_while_writing_leaves_the_previous_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.safetensors"
    write_state({"step": 1, "weights": torch.ones(5)}, path)

    def killed(source: Path, target: Path) -> None:
        source.write_bytes(source.read_bytes()[:20])  # as if it had come in the middle of the file
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write_state({"step": 2, "weights": torch.zeros(5)}, path)
    assert same(read_state(path), {"step": 1, "weights": torch.ones(5)})
    write_state({"step": 3}, path)
    assert read_state(path) == {"step": 3}
    assert os.listdir(tmp_path) == ["last.safetensors"]


@pytest.mark.parametrize("content", [b"", b"no safetensors at all", b"\x02\x00\x00\x00\x00\x00\x00\x00{}"])
def test_another_file_is_refused_with_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "last.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"last\.safetensors is not the state of a fit"):
        read_state(path)
