"""The commands of README and docs, run one after the other in a small world, as someone would who follows them."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pandas as pd
import pytest

from experiments import cli, docs
from features.simulation.simulator import simulate
from training.drafting.drafting import draft
from training.tracking.tracking import connect

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# What runs for good, or needs more than a world of files: where it is run.
ELSEWHERE = {"package": "test_package.py", "serve": "test_package.py", "swap": "test_swap.py", "ui": "test_tracking.py"}
# Words of the documents → words of the world.
REPLACED = {
    "demo_churn@champion": "my_events_churn@champion",
    "experiments/configs/bpi2012_conversion.toml": "my_conversion.toml", "my_churn.toml": "my_events_churn.toml",
    "moved/events.parquet": "my_events.csv",
}  # fmt: skip


class Follower:
    """Someone who types the commands and copies what they print."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.capsys, self.monkeypatch = capsys, monkeypatch
        self.uri = self.other = self.run_id = ""
        self.done: list[str] = []

    def types(self, command: str) -> None:
        """Run one command line; it must end well."""
        words = [self._word(word) for word in shlex.split(command)]
        name = words[1]
        if name in ELSEWHERE:
            return
        words += ["--trials", "2"] * (name == "train") + ["--set", "segments.found.segments=3"] * (name == "segment")
        words += ["--set", "allow_small=true"] * (name in ("train", "segment"))
        self.monkeypatch.setattr(sys, "argv", [*words, "--json"])
        code: object = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        output = self.capsys.readouterr()
        assert code in (0, None), f"{words}: {output.err[-3000:]}"
        result = json.loads(output.out.splitlines()[-1])
        self.uri = result.get("model_uri", self.uri) if name == "train" else self.uri
        self.run_id = result["run_id"] if name == "train" else self.run_id
        self.other = result["models"]["rfm"]["uri"] if name == "train" else self.other
        self.done.append(name)
        if name == "promote":  # whatever a model of two trials has earned
            connect().set_registered_model_alias(result["name"], "champion", result["version"])

    def _word(self, word: str) -> str:
        word = word.replace("models:/m-…", self.uri).replace("RUN_ID", self.run_id)
        word = word.replace("demo_churn@challenger", self.other)
        return REPLACED.get(word.removeprefix("models:/"), word)


def block(heading: str, page: str = README) -> list[str]:
    """The command lines of the first fence below a heading."""
    below = page[page.index(f"{heading}\n") :]
    match = re.search(r"```\n(.*?)```", below, re.DOTALL)
    assert match is not None
    lines = (line.split("  #")[0].strip() for line in match[1].splitlines())
    return [part.strip() for line in lines for part in line.split("&&") if part.strip().startswith("journeylab ")]


@pytest.fixture
def world(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a log of someone's own."""
    events = simulate(n_customers=500, days=260, seed=3).events
    theirs = events.rename(columns={"customer_id": "customer", "timestamp": "time", "touchpoint": "event"})
    theirs["event"] = theirs["event"].replace({"purchase": "order"})
    theirs.to_csv(tmp_path / "my_events.csv", sep=";", index=False)
    monkeypatch.chdir(tmp_path)
    draft(Path("my_events.csv"), Path("my_conversion.toml"), kind="conversion")
    return tmp_path


def test_every_command_has_a_test() -> None:
    """What is run below, what is run by other tests, and `simulate`, `monitor`, `reproduce` by theirs."""
    in_this_file = {"draft", "train", "promote", "score", "segment", "map", "compare", "reproduce"}
    elsewhere = {
        "simulate": "test_project.py",
        "monitor": "test_monitor_report.py",
        "work": "team",
        "features": "spark",
    }
    tested = in_this_file | set(ELSEWHERE) | set(elsewhere)
    assert set(docs.commands_of()) - tested == set()


@pytest.mark.slow
def test_commands_of_the_readme(
    world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    someone = Follower(capsys, monkeypatch)
    for command in block("## Your own events"):
        someone.types(command)
    assert someone.done == ["draft", "train", "score", "segment", "map", "promote"]
    scores = pd.read_csv(world / "scores.csv")
    assert len(scores) > 400
    assert scores["probability"].between(0, 1).all()
    assert (world / "map.html").stat().st_size > 100_000
    docs_of = {name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("journey_map.md", "reviewing.md")}
    for command in (
        *block("# The journey map", docs_of["journey_map.md"]),
        *block("## Two models side by side", docs_of["reviewing.md"]),
    ):
        someone.types(command)
    assert someone.done[6:] == ["map", "map", "compare", "reproduce"]
    assert (world / "compare.html").exists()
    assert (world / "bpi.html").exists()
    for command in block("## Make a run again", docs_of["reviewing.md"]):
        someone.types(command)
