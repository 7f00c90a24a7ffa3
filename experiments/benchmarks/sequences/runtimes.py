"""What else could run the encoders: PyTorch eager, compiled, compiled ahead of time, ONNX Runtime.

The first four have the same weights and are held to the same numbers. ONNX has a GRU, but none whose memory fades, so
it is given the easier task: its own GRU on inputs that lie ready, without decay, embeddings or pools. What is compared
with that is the bare `torch.nn.GRU`. What is not installed, or has no C++ compiler, is left out.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from experiments.benchmarks.sequences.worlds import LENGTH, Way, as_steps, encoder_of, long_journeys, medians
from features.sequences.sequences import SequenceBatch, SequenceFeatures
from models.sequence.embedder import plain_weights
from models.sequence.encoder import Encoder, steps_of
from models.sequence.gru import DecayGRU
from models.sequence.runtime import CompiledGRU
from models.sequence.settings import Floats
from models.sequence.torch_runtime import TorchRuntime

AGREE = 1e-4  # of embeddings, of which sums over 100 steps are the largest
Step = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
Engine = Callable[[SequenceBatch], Floats]


def side_by_side(hidden: int, n_rows: int, rounds: int, threads: int, with_compiler: bool) -> dict[str, Any]:
    """Milliseconds for one journey, and steps a second for a block of them, by every way there is."""
    rows = long_journeys(n_rows)
    sequences = as_steps(rows)
    outcome: dict[str, Any] = {}
    engines, compile_s = engines_of(hidden, sequences, with_compiler)
    for name, size, times in (("one journey, ms", 1, 10 * rounds), ("block, steps a second", n_rows, rounds)):
        batch = sequences.batch(rows.take(np.arange(size)))
        _agree(engines, batch)
        ways: dict[str, Way] = {each: partial(engine, batch) for each, engine in engines.items()}
        seconds = medians(ways | bare(hidden, size, threads), times)
        outcome[name] = {each: 1e3 * s if size == 1 else size * LENGTH / s for each, s in seconds.items()}
    return outcome | {"seconds to compile": compile_s}


def engines_of(
    hidden: int, sequences: SequenceFeatures, with_compiler: bool
) -> tuple[dict[str, Engine], dict[str, float]]:
    """Batch → (B, D) by rank; and how long the compiler took."""
    encoder = encoder_of("gru", hidden, sequences)
    weights = plain_weights(encoder)
    engines: dict[str, Engine] = {
        "our kernel, one thread": CompiledGRU(weights).pooled,
        "PyTorch eager": TorchRuntime(encoder.settings, weights, sequences).pooled,
    }
    took: dict[str, float] = {}
    if with_compiler and shutil.which("g++"):
        for name, build in (("torch.compile of a step", compiled_step), ("the same ahead of time", step_ahead_of_time)):
            begun = time.perf_counter()
            engines[name] = partial(step_by_step, encoder, build(hidden))
            engines[name](sequences.batch(long_journeys(3)))
            took[name] = time.perf_counter() - begun
    return engines, took


def step_by_step(encoder: Encoder, step: Step, batch: SequenceBatch) -> Floats:
    """The encoder, its recurrence done by `step`: a compiler would take minutes for 100 of them unrolled."""
    steps, network = steps_of(batch), encoder.network
    assert isinstance(network, DecayGRU)
    with torch.inference_mode():
        x = encoder.numbers(steps.numbers)
        for table, codes in zip(encoder.tables, steps.codes, strict=True):
            x = x + table(codes)
        gates, states = network.inputs(x), []
        decay = torch.exp(-steps.gap_days[:, None] * network.log_rate.exp())
        state, begin = x.new_zeros(steps.sizes[0], network.hidden), 0
        for size in steps.sizes:
            end = begin + size
            state = step(state[:size], gates[begin:end], decay[begin:end], network.weight, network.bias)
            states.append(state)
            begin = end
        return np.asarray(encoder.pool(torch.cat(states), steps).numpy(), np.float32)


class OneStep(nn.Module):
    """A step of `models.sequence.gru`, as plain operations that a compiler can fuse."""

    def forward(self, state: Tensor, gates: Tensor, decay: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(rows, H) before → (rows, H) after."""
        decayed = state * decay
        recalled = torch.addmm(bias, decayed, weight)
        (x_r, x_z, x_n), (u_r, u_z, u_n) = gates.chunk(3, 1), recalled.chunk(3, 1)
        new = torch.tanh(x_n + torch.sigmoid(x_r + u_r) * u_n)
        return torch.lerp(new, decayed, torch.sigmoid(x_z + u_z))


def compiled_step(hidden: int) -> Step:
    """`torch.compile`, for any number of rows."""
    del hidden  # it looks at what it is given
    step: Step = torch.compile(OneStep(), dynamic=True)
    return step


def step_ahead_of_time(hidden: int) -> Step:
    """AOTInductor: a shared library that a service would load without a compiler."""
    state, gates = torch.randn(4, hidden), torch.randn(4, 3 * hidden)
    inputs_ = (state, gates, torch.rand(4, hidden), torch.randn(hidden, 3 * hidden), torch.randn(3 * hidden))
    rows = torch.export.Dim("rows", min=1, max=100_000)
    program = torch.export.export(OneStep(), inputs_, dynamic_shapes=({0: rows}, {0: rows}, {0: rows}, None, None))
    path = Path(tempfile.mkdtemp()) / "step.pt2"
    torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    step: Step = torch._inductor.aoti_load_package(str(path))
    return step


def bare(hidden: int, size: int, threads: int) -> dict[str, Way]:
    """The easier task: a GRU without decay alone, by PyTorch and, where it is installed, by ONNX Runtime."""
    gru, x = nn.GRU(hidden, hidden).eval(), torch.randn(LENGTH, size, hidden)
    ways: dict[str, Way] = {"bare nn.GRU": partial(_inferred, gru, x)}
    if all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime")):
        session = onnx_session(gru, threads)
        (outcome,) = session.run(None, {"x": x.numpy()})  # (T, 1, B, H)
        np.testing.assert_allclose(outcome[:, 0], _inferred(gru, x).numpy(), atol=AGREE)
        ways["bare GRU of ONNX Runtime"] = partial(session.run, None, {"x": x.numpy()})
    return ways


def _inferred(gru: nn.GRU, x: Tensor) -> Tensor:
    with torch.inference_mode():
        states: Tensor = gru(x)[0]
        return states


def onnx_session(gru: nn.GRU, threads: int) -> Any:
    """ONNX's GRU with the weights of PyTorch's: its gates are z, r, n instead of r, z, n."""
    onnx: Any = importlib.import_module("onnx")
    onnxruntime: Any = importlib.import_module("onnxruntime")

    weights = {
        name: torch.cat([parts[1], parts[0], parts[2]]).detach().numpy()[None]
        for name, parts in ((name, values.chunk(3)) for name, values in gru.named_parameters())
    }
    biases = np.concatenate([weights["bias_ih_l0"], weights["bias_hh_l0"]], axis=1)  # (1, 6H)
    inputs_ = {"w": weights["weight_ih_l0"], "r": weights["weight_hh_l0"], "b": biases}
    node = onnx.helper.make_node("GRU", ["x", "w", "r", "b"], ["y"], hidden_size=gru.hidden_size, linear_before_reset=1)
    graph = onnx.helper.make_graph(
        [node], "gru",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [LENGTH, None, gru.input_size])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [LENGTH, 1, None, gru.hidden_size])],
        [onnx.numpy_helper.from_array(values, name) for name, values in inputs_.items()],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _agree(engines: dict[str, Engine], batch: SequenceBatch) -> None:
    """All engines give one embedding."""
    expected, *rest = (engine(batch) for engine in engines.values())
    for other in rest:
        np.testing.assert_allclose(other, expected, atol=AGREE * float(np.abs(expected).max()))
