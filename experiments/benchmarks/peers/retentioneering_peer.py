"""Runs in Retentioneering's own environment: its five tables of a log, timed, written out to compare.

    RETENTIONEERING_NO_TRACK=1 .venv-peers-map/bin/python retentioneering_peer.py events.parquet settings.json out

Started by `experiments.benchmarks.peers.retentioneering_map`. The best of some rounds counts; importing and reading the
frame do not.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from retentioneering import Eventstream  # type: ignore[import-not-found]

PACKAGES = ("retentioneering", "pandas", "numpy", "duckdb", "pyarrow")


def main() -> None:
    events, settings, out = (Path(argument) for argument in sys.argv[1:4])
    settings_in = json.loads(settings.read_text(encoding="utf-8"))
    frame = pd.read_parquet(events)
    schema = {"path_cols": ["customer_id"], "event_col": "touchpoint", "timestamp_col": "timestamp"}
    seconds: dict[str, float] = {}

    def best(name: str, call: Callable[[], Any]) -> Any:
        output = None
        for _ in range(settings_in["rounds"]):
            begun = time.perf_counter()
            output = call()
            seconds[name] = min(seconds.get(name, float("inf")), time.perf_counter() - begun)
        return output

    stream = best("event stream", lambda: Eventstream(frame, schema))
    tables = {
        "step_matrix": first(best("step matrix", lambda: stream.step_matrix_data(max_steps=settings_in["steps"]))),
        "counts": best("transition graph", lambda: stream.transition_graph_data("count")),
        "funnel": pd.DataFrame(best("funnel", lambda: stream.funnel_data(steps=settings_in["funnel"]))["steps"]),
        "sankey": first(best("Sankey data", lambda: stream.step_sankey_data(max_steps=settings_in["steps"]))),
        "customers": stream.transition_graph_data("unique_paths"),
        "median_s": stream.transition_graph_data("time_median").apply(lambda gaps: gaps.dt.total_seconds()),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        plain = table.set_axis([str(column) for column in table.columns], axis=1)
        plain.index = plain.index.astype(str)
        plain.to_parquet(out / f"{name}.parquet")
    versions = {name: version(name) for name in PACKAGES}
    (out / "report.json").write_text(json.dumps({"seconds": seconds, "versions": versions}), encoding="utf-8")


def first(blocks: Any) -> Any:
    """The table itself: some calls give a tuple of one."""
    return blocks[0] if isinstance(blocks, tuple | list) else blocks


if __name__ == "__main__":
    main()
