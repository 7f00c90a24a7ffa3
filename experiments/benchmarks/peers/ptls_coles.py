"""Train CoLES of pytorch-lifestream on a folder of arrays; runs in its own environment, started by `coles.py`.

    .venv-peers/bin/python experiments/benchmarks/peers/ptls_coles.py INPUTS OUTPUTS

INPUTS is what `exchange.write_inputs` wrote. OUTPUTS gets `report.json` (times, real events a second, versions) and,
where snapshots are asked for, `embeddings.npy` (n, hidden) float32. Everything that learns is the library's own: its
event encoder, GRU, loss, sampling, collation and module, put together as its notebook on CoLES embeddings shows.
"""

from __future__ import annotations

import json
import platform
import sys
import time
import warnings
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from ptls.data_load.datasets import MemoryMapDataset, inference_data_loader
from ptls.data_load.iterable_processing import SeqLenFilter
from ptls.frames import PtlsDataModule
from ptls.frames.coles import ColesDataset, CoLESModule
from ptls.frames.coles.split_strategy import SampleSlices
from ptls.nn import RnnSeqEncoder, TrxEncoder

Record = dict[str, torch.Tensor]
PACKAGES = ("pytorch-lifestream", "torch", "pytorch-lightning", "numpy", "pandas")


class Stopwatch(pl.Callback):
    """Real events and seconds of each training step: in the step (forward, backward, optimiser), and between ends.

    Attributes:
        events: real events of each step, padding not counted.
        step_s: seconds inside each step.
        ended_s: when each step ended, by the same clock.
    """

    def __init__(self) -> None:
        self.events: list[int] = []
        self.step_s: list[float] = []
        self.ended_s: list[float] = []
        self._begun = 0.0

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, number: int) -> None:
        """The batch is made already."""
        self._begun = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, number: int) -> None:
        """Count what the encoder saw."""
        self.ended_s.append(time.perf_counter())
        self.step_s.append(self.ended_s[-1] - self._begun)
        self.events.append(int(batch[0].seq_lens.sum()))

    def rates(self, warm_up: int) -> dict[str, float]:
        """Events a second after `warm_up` steps, without and with the time for making batches."""
        first = min(warm_up, len(self.events) - 1)
        events = sum(self.events[first:])
        in_steps, ended = sum(self.step_s[first:]), self.ended_s[first - 1] if first else self.ended_s[0]
        whole = self.ended_s[-1] - ended if len(self.events) > 1 else in_steps
        return {
            "steps": len(self.events),
            "measured_steps": len(self.events) - first,
            "events_a_step": float(np.mean(self.events)),
            "events_per_s_in_steps": events / in_steps,
            "events_per_s": events / whole,
        }


def records(folder: Path, settings: dict[str, Any], start: Any, stop: Any) -> list[Record]:
    """A dictionary of tensors a journey, the library's own format: views of the flat columns, start to stop."""
    names = [*settings["categories"], *settings["numbers"], "event_time"]
    columns = {name: torch.from_numpy(np.load(folder / f"{name}.npy")) for name in names}
    return [
        {name: column[a:b] for name, column in columns.items()}
        for a, b in zip(start.tolist(), stop.tolist(), strict=True)
    ]


def coles(settings: dict[str, Any]) -> CoLESModule:
    """The notebook's module: categories embedded, numbers scaled, a GRU, contrastive loss with hard negatives."""
    trx_encoder = TrxEncoder(
        embeddings={name: dict(slices) for name, slices in settings["categories"].items()},
        numeric_values=dict(settings["numbers"]),
        embeddings_noise=settings["embeddings_noise"],
    )
    return CoLESModule(
        seq_encoder=RnnSeqEncoder(trx_encoder=trx_encoder, hidden_size=settings["hidden"], type="gru"),
        optimizer_partial=partial(torch.optim.Adam, lr=settings["learning_rate"]),
        lr_scheduler_partial=partial(torch.optim.lr_scheduler.StepLR, step_size=30, gamma=0.9),
    )


def train(module: CoLESModule, journeys: list[Record], settings: dict[str, Any]) -> tuple[Stopwatch, float]:
    """Fit with the library's dataset and data module; the stopwatch, and the seconds of the whole fit."""
    slices = settings["slices"]
    begun = time.perf_counter()
    data = PtlsDataModule(
        train_data=ColesDataset(
            MemoryMapDataset(data=journeys, i_filters=[SeqLenFilter(min_seq_len=slices["cnt_min"])]),
            splitter=SampleSlices(**slices),
        ),
        train_batch_size=settings["batch"],
    )
    watch = Stopwatch()
    trainer = pl.Trainer(
        max_epochs=settings["epochs"],
        max_steps=settings["max_steps"] or -1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[watch],
    )
    trainer.fit(module, data)
    return watch, time.perf_counter() - begun


def embed(module: CoLESModule, snapshots: list[Record]) -> Any:
    """(n, hidden) float32, in the order of the snapshots."""
    module.eval()
    with torch.no_grad():
        vectors = [module(batch) for batch in inference_data_loader(snapshots, num_workers=0, batch_size=64)]
    return torch.vstack(vectors).numpy().astype(np.float32)


def main() -> None:
    inputs, outputs = Path(sys.argv[1]), Path(sys.argv[2])
    warnings.filterwarnings("ignore")  # of a library that is not ours
    settings = json.loads((inputs / "settings.json").read_text(encoding="utf-8"))
    torch.set_num_threads(settings["threads"])
    pl.seed_everything(settings["seed"], verbose=False)
    offsets, stop = np.load(inputs / "offsets.npy"), np.load(inputs / "train_stop.npy")
    module = coles(settings)
    watch, fit_s = train(module, records(inputs, settings, offsets[:-1], stop), settings)
    report: dict[str, Any] = {"fit_s": fit_s, **watch.rates(settings["warm_up_steps"])}
    if (inputs / "snapshot_start.npy").exists():
        begun = time.perf_counter()
        where = np.load(inputs / "snapshot_start.npy"), np.load(inputs / "snapshot_stop.npy")
        np.save(outputs / "embeddings.npy", embed(module, records(inputs, settings, *where)))
        report["embed_s"] = time.perf_counter() - begun
    report["versions"] = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    (outputs / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
