"""The journey map beside Retentioneering 5.2.4: the same five tables of the same loaded table, timed and compared.

    make bench-peers-map                    # or, with the peer's environment made:
    .venv/bin/python -m experiments.benchmarks.peers.retentioneering_map

Event stream (our packing), step matrix, transition graph (ours with medians of gaps and customers besides the counts),
funnel, Sankey data (ours are links between steps, theirs a step matrix) of BPI 2012. Telemetry is off. Each side has
its own process and takes the best of the same number of rounds. Bar: all five together at least 5 × faster. The values
must agree: counts, customers, steps and funnel exactly, medians to the whole seconds that the peer counts in.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from features.journey_map.funnel import funnel, stages_of
from features.journey_map.selection import select
from features.journey_map.steps import sankey, step_matrix
from features.journey_map.tables import MapSettings
from features.journey_map.transitions import transitions
from features.journeys.journeys import Journeys
from features.journeys.loading import read_events
from features.journeys.packing import pack
from training.config.experiment import load_experiment

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = Path(__file__).with_name("retentioneering_peer.py")
STAGES = ("A_SUBMITTED", "A_PREACCEPTED", "A_ACCEPTED", "O_SENT", "O_ACCEPTED", "A_ACTIVATED")
STEPS, BAR = 10, 5.0
ENDS = {"path_start": "start", "path_end": "end"}
COLUMNS = ["customer_id", "timestamp", "touchpoint"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, default=ROOT / ".venv-peers-map" / "bin" / "python")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "peers" / "map")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    frame = loaded()
    theirs, report = run_peer(options.python, options.folder, frame, options.rounds)
    seconds, mine = ours(frame, options.rounds)
    show(len(frame), seconds, report)
    wrong = [*differences(mine, theirs)]
    print("\n".join(wrong) if wrong else "values: the same (counts, customers, medians of gaps, steps, funnel)")
    if wrong:
        raise SystemExit(1)


def loaded() -> pd.DataFrame:
    """BPI 2012 as canonical events."""
    experiment = load_experiment(ROOT / "experiments" / "configs" / "bpi2012_conversion.toml")
    return pd.DataFrame(read_events(experiment.events).events.select(COLUMNS).to_pandas())


def run_peer(python: Path, folder: Path, frame: pd.DataFrame, rounds: int) -> tuple[dict[str, pd.DataFrame], Any]:
    """The peer's tables and its report."""
    if not python.exists():
        raise SystemExit(f"No environment for the peer ({python}): `make bench-peers-map` makes it")
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(folder / "events.parquet", index=False)
    content = {"steps": STEPS, "funnel": STAGES, "rounds": rounds}
    (folder / "settings.json").write_text(json.dumps(content), encoding="utf-8")
    command = [python, SCRIPT, folder / "events.parquet", folder / "settings.json", folder / "out"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "RETENTIONEERING_NO_TRACK": "1"})
    if done.returncode:
        raise SystemExit("Retentioneering failed:\n" + "\n".join(done.stderr.splitlines()[-20:]))
    report = json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))
    return {path.stem: pd.read_parquet(path) for path in (folder / "out").glob("*.parquet")}, report


def ours(frame: pd.DataFrame, rounds: int) -> tuple[dict[str, float], dict[str, pd.DataFrame]]:
    """Seconds of the five tables, and the tables; each from nothing but the frame or the packed log."""
    settings = MapSettings(stages=STAGES, steps=STEPS, sankey_steps=STEPS, sankey_touchpoints=100)
    packed: list[Journeys] = []
    ways: dict[str, Callable[[], Any]] = {
        "event stream": lambda: packed.append(pack(frame)),
        "step matrix": lambda: step_matrix(select(packed[-1]), settings),
        "transition graph": lambda: transitions(select(packed[-1])),
        "funnel": lambda: by_touchpoint(packed[-1], settings),
        "Sankey data": lambda: sankey(select(packed[-1]), settings),
    }
    seconds, tables = dict.fromkeys(ways, float("inf")), {}
    for _ in range(rounds + 1):  # the first one may compile
        for name, way in ways.items():
            begun = time.perf_counter()
            tables[name] = way()
            seconds[name] = min(seconds[name], time.perf_counter() - begun)
    return seconds, tables


def by_touchpoint(journeys: Journeys, settings: MapSettings) -> pd.DataFrame:
    selection = select(journeys)
    return funnel(selection, stages_of(selection, settings)[0])


def differences(mine: dict[str, pd.DataFrame], theirs: dict[str, pd.DataFrame]) -> list[str]:
    """What does not agree, a line each."""
    wrong = [f"{name} of transitions differ" for name in ("counts", "customers") if not same_edges(name, mine, theirs)]
    wrong += [] if same_medians(mine, theirs) else ["medians of gaps differ"]
    steps = theirs["step_matrix"].rename(index=ENDS).drop(index="start").drop(columns="0")
    product = mine["step matrix"].reindex(steps.index).fillna(0.0)
    wrong += [] if np.allclose(product.to_numpy(), steps.to_numpy(), atol=1e-12) else ["step matrices differ"]
    funnels = mine["funnel"]["customers"].tolist(), theirs["funnel"]["unique_paths"].tolist()
    wrong += [] if funnels[0] == funnels[1] else ["funnels differ"]
    return wrong + ([] if same_links(mine, theirs) else ["Sankey data differ"])


def same_edges(name: str, mine: dict[str, pd.DataFrame], theirs: dict[str, pd.DataFrame]) -> bool:
    """Whether a matrix of the peer's holds what our column does, and nothing else."""
    column = "count" if name == "counts" else name
    product = {(edge.source, edge.target): getattr(edge, column) for edge in mine["transition graph"].itertuples()}
    return product == edges_of(theirs[name])


def same_medians(mine: dict[str, pd.DataFrame], theirs: dict[str, pd.DataFrame]) -> bool:
    """Whether medians differ by a second at most: the peer counts the seconds that begin between two events."""
    peers = edges_of(theirs["median_s"])
    inner: list[Any] = mine["transition graph"].dropna(subset="gap_s_median").to_dict("records")
    return all(abs(edge["gap_s_median"] - peers.get((edge["source"], edge["target"]), 0.0)) <= 1 for edge in inner)


def edges_of(matrix: pd.DataFrame) -> dict[tuple[str, str], float]:
    """A source × target matrix as its positive cells."""
    named = matrix.rename(index=ENDS, columns=ENDS)
    source, target = np.nonzero(named.fillna(0).to_numpy())
    cells = zip(named.index[source], named.columns[target], named.to_numpy()[source, target], strict=True)
    return {(str(edge), str(other)): value for edge, other, value in cells}


def same_links(mine: dict[str, pd.DataFrame], theirs: dict[str, pd.DataFrame]) -> bool:
    """Whether as many customers come to each touchpoint at each step by our links as in the peer's data."""
    n_customers = int(mine["funnel"]["customers"].iloc[0])
    nodes = (theirs["sankey"].rename(index=ENDS).drop(index=["start", "end"]) * n_customers).round()
    arrivals = mine["Sankey data"].query("target != 'end'").groupby(["step", "target"])["customers"].sum().to_dict()
    peers = {
        (step - 1, str(name)): number
        for step in range(2, STEPS + 1)
        for name, number in nodes[str(step)].items()
        if number
    }
    return arrivals == peers


def show(events: int, seconds: dict[str, float], report: Any) -> None:
    content = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    print(f"{events:,} events; theirs: {content}")
    for name, product in seconds.items():
        peers = report["seconds"][name]
        print(f"  {name:<18}{product * 1e3:8.1f} ms ours {peers * 1e3:8.1f} ms theirs {peers / product:7.1f} ×")
    product, peers = sum(seconds.values()), sum(report["seconds"].values())
    bar = f"bar {BAR:.0f} ×, {'met' if peers >= BAR * product else 'MISSED'}"
    print(
        f"  {'all five':<18}{product * 1e3:8.1f} ms ours {peers * 1e3:8.1f} ms theirs {peers / product:7.1f} ×: {bar}"
    )


if __name__ == "__main__":
    main()
