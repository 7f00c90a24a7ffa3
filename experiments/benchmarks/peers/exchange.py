"""What a peer's process is given and gives back: flat arrays and JSON, the same rows for both sides.

Events are those of the log, coded here: 0 pads, 1 is the most frequent category of the events to train on, the last
code is everything rare or never seen. No label goes over, and no event at or after the last training cutoff is trained
on; events between it and a test cutoff are there to be embedded only, and only where test snapshots are asked for.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from features.journeys.journeys import Journeys, Snapshots

DAY_US, HOUR_US = 86_400_000_000, 3_600_000_000
FEWEST_EVENTS = 5  # of a category, to have a code of its own
EMBEDDED = 16  # the width of a category's embedding, as in the library's notebook
SCRIPT = Path(__file__).with_name("ptls_coles.py")

Ints = npt.NDArray[np.int64]
Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ColesSettings:
    """How CoLES is trained; where the library's notebook says something, the default says the same.

    Attributes:
        shortest, longest: events of a slice; journeys shorter than `shortest` are not trained on.
        hidden, batch, threads: width of the GRU, customers a batch, threads of torch.
        epochs: of the finished training.
        max_steps: stop after so many steps, for a measurement of speed; 0 for all of them.
        warm_up_steps: steps before the measurement of speed begins.
        split_count: slices of a customer in a batch.
        The rest are the library's own names.
    """

    shortest: int
    longest: int
    hidden: int = 128
    batch: int = 64
    threads: int = 2
    epochs: int = 15
    max_steps: int = 0
    warm_up_steps: int = 10
    split_count: int = 5
    learning_rate: float = 0.001
    embeddings_noise: float = 0.003
    seed: int = 7

    def to_dict(self) -> dict[str, Any]:
        """As the peer's process reads them."""
        columns = asdict(self)
        slices = {"split_count": columns.pop("split_count"), "cnt_min": columns.pop("shortest")}
        return columns | {"slices": slices | {"cnt_max": columns.pop("longest")}}


@dataclass(frozen=True)
class PeerReport:
    """What came back.

    Attributes:
        fit_s: seconds of the whole fit, making batches included, imports and reading not.
        events_per_s_in_steps: real events a second of forward, backward and optimiser step.
        events_per_s: the same with the time for making batches.
        events_a_step: real events of a batch, mean.
        steps, measured_steps: all, and those after the warm-up.
        embed_s: seconds for the snapshots.
        versions: package → version in the peer's environment.
    """

    fit_s: float
    events_per_s_in_steps: float
    events_per_s: float
    events_a_step: float
    steps: int
    measured_steps: int
    embed_s: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)


def write_inputs(
    folder: Path, journeys: Journeys, trained_until: int, settings: ColesSettings, snapshots: Snapshots | None = None
) -> None:
    """Write one folder of inputs.

    Args:
        folder: made where it is not there.
        journeys: the packed log.
        trained_until: µs since 1970 UTC; events before it are trained on.
        settings: of the training.
        snapshots: (n,) rows to embed; none where only speed is measured.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():  # of an earlier run
        path.unlink()
    stop = journeys.at(trained_until).stop  # (n_customers,)
    visible = journeys.t < trained_until
    if snapshots is not None:
        np.save(folder / "snapshot_start.npy", snapshots.start)
        np.save(folder / "snapshot_stop.npy", snapshots.stop)
    np.save(folder / "offsets.npy", journeys.offsets)
    np.save(folder / "train_stop.npy", stop)
    np.save(folder / "event_time.npy", journeys.t / DAY_US)
    categories = {}
    for name, codes in _categories(journeys).items():
        codes_by_name = _by_frequency(codes, visible)
        categories[name] = {
            "in": int(codes_by_name[visible].max()) + 2,
            "out": EMBEDDED,
        }  # padding, codes, rare and unseen
        codes_by_name[codes_by_name == 0] = categories[name]["in"] - 1
        np.save(folder / f"{name}.npy", codes_by_name)
    numbers = _numbers(journeys)
    for name, values in numbers.items():
        np.save(folder / f"{name}.npy", values)
    content = settings.to_dict() | {"categories": categories, "numbers": dict.fromkeys(numbers, "log")}
    (folder / "settings.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


def _categories(journeys: Journeys) -> dict[str, Ints]:
    """(n_events,) codes from 0, −1 missing: what the log has of an event, and hour and weekday."""
    names = [name for name in ("touchpoint", "channel", "item", "resource") if name in journeys.categories]
    columns = {name: journeys.categories[name].codes.astype(np.int64) for name in names}
    hour = journeys.t // HOUR_US
    return columns | {"hour": hour % 24, "weekday": hour // 24 % 7}


def _by_frequency(codes: Ints, visible: npt.NDArray[np.bool_]) -> Ints:
    """(n_events,) 1 for the most frequent code among `visible` events, 2, …; 0 for rare, missing and unseen ones."""
    counts = np.bincount(codes[visible & (codes >= 0)], minlength=int(codes.max()) + 1)
    order = np.argsort(-counts, kind="stable")
    ranks = np.zeros(len(counts) + 1, np.int64)  # the last one is for −1
    frequent = order[counts[order] >= FEWEST_EVENTS]
    ranks[frequent] = np.arange(1, len(frequent) + 1)
    return ranks[codes]


def _numbers(journeys: Journeys) -> dict[str, Matrix]:
    """(n_events,) float32: days since the event before (0 for the first), and the value where there is one."""
    gap = np.diff(journeys.t, prepend=journeys.t[:1])
    gap[journeys.offsets[:-1][np.diff(journeys.offsets) > 0]] = 0
    columns = {"gap_days": (gap / DAY_US).astype(np.float32)}
    if "value" in journeys.numbers:
        columns["value"] = np.nan_to_num(journeys.numbers["value"]).astype(np.float32)
    return columns


def run_peer(python: Path, inputs: Path, outputs: Path) -> tuple[PeerReport, Matrix | None]:
    """Train in the peer's environment; its report, and the (n, hidden) embeddings where snapshots were given.

    Raises:
        SystemExit: no such environment, or the peer failed; its last lines are shown.
    """
    if not python.exists():
        raise SystemExit(f"No environment for the peers ({python}): `make bench-peers` makes it")
    outputs.mkdir(parents=True, exist_ok=True)
    for path in outputs.iterdir():  # of an earlier run
        path.unlink()
    done = subprocess.run([python, SCRIPT, inputs, outputs], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit("pytorch-lifestream failed:\n" + "\n".join(done.stderr.splitlines()[-20:]))
    return read_outputs(outputs)


def read_outputs(outputs: Path) -> tuple[PeerReport, Matrix | None]:
    """What a finished run left: its report, and the (n, hidden) float32 embeddings if there are any."""
    report = PeerReport(**json.loads((outputs / "report.json").read_text(encoding="utf-8")))
    file = outputs / "embeddings.npy"
    return report, np.load(file) if file.exists() else None
