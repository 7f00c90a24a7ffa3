"""`make demo`: every step on simulated journeys, by the commands that a user would type."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from rich.console import Console

EVENTS = Path("runs/demo/events.parquet")
EXPERIMENTS = {
    "demo_churn": "experiments/configs/demo.toml",
    "demo_conversion": "experiments/configs/demo_conversion.toml",
}
NEXT = """
What to do next
  make ui                               compare the runs in MLflow:    http://127.0.0.1:5000
  make serve                            serve the bento and its API page: http://127.0.0.1:3000
  runs/demo/map.html                    the journey map: open it in a browser
  experiments/configs/demo.toml                 the experiment file: copy it, point it at your own events
  experiments/configs/online_retail_churn.toml  real journeys: churn in a gift shop
  experiments/configs/bpi2012_conversion.toml   real journeys: loan applications
"""

console = Console(stderr=True, soft_wrap=True)


def main() -> None:
    """Simulate, train both tasks, segment, draw the map, promote, package, and score one customer by the bento."""
    started = time.monotonic()
    journeylab("simulate", "--customers", "1500", "--out", str(EVENTS.parent))
    for file in EXPERIMENTS.values():
        trained = journeylab("train", file)
        journeylab("promote", trained["model_uri"])
    segmented = journeylab("segment", next(iter(EXPERIMENTS.values())))
    promoted = journeylab("promote", segmented["model_uri"])
    journeylab("map", next(iter(EXPERIMENTS.values())), "--out", str(EVENTS.with_name("map.html")))
    segments = promoted["model_uri"].removeprefix("models:/")
    bento = journeylab("package", *(f"{name}@champion" for name in EXPERIMENTS), segments)["bento"]
    score_customer(bento)
    console.print(f"\nDone in {time.monotonic() - started:.0f} s.{NEXT}", highlight=False)


def journeylab(*arguments: str) -> dict[str, Any]:
    """Run a command as a user would and return what it prints for scripts."""
    console.rule(f"journeylab {' '.join(arguments)}", align="left", style="dim")
    command = [sys.executable, "-m", "experiments.cli", *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def score_customer(bento: str) -> None:
    """Start the bento, send it one customer's events, print the answers, stop it."""
    from serving.bento.serve import running

    events, as_of = sample_customer()
    body = json.dumps({"events": events, "as_of": as_of, "reasons": 3}).encode()
    with running(bento) as url:
        console.rule(f"POST /score, {len(events)} events of one customer", align="left", style="dim")
        request = Request(f"{url}/score", body, {"Content-Type": "application/json"})
        with urlopen(request, timeout=30) as answer:
            console.print_json(answer.read().decode())


def sample_customer() -> tuple[list[dict[str, Any]], str]:
    """The canonical events of one customer who has not subscribed yet, JSON-ready, and the end of the log."""
    import pandas as pd

    log = pd.read_parquet(EVENTS)
    subscribers = set(log.loc[log["touchpoint"] == "subscribe", "customer_id"])
    prospects = log[~log["customer_id"].isin(subscribers)]
    customer = prospects["customer_id"].iloc[len(prospects) // 2]
    mine = prospects[prospects["customer_id"] == customer].drop(columns="customer_id")
    rows = json.loads(mine.to_json(orient="records", date_format="iso"))
    events = [{name: value for name, value in row.items() if value is not None} for row in rows]
    return events, log["timestamp"].max().isoformat()


if __name__ == "__main__":
    main()
