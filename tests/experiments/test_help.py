"""Bad input at the command line: one sentence that names what was probably meant, status 2, no stack."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from experiments import cli
from training.fitting.train import TrainResult
from training.tracking.champions import promote
from training.tracking.tracking import connect

Trained = tuple[Path, TrainResult]


@pytest.fixture
def run_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """A command line → its status and what it said on standard error."""

    def run(line: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["journeylab", *shlex.split(line)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, " ".join(capsys.readouterr().err.replace("│", " ").split())

    return run


@pytest.fixture
def folder(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a trained experiment, with a champion."""
    monkeypatch.chdir(trained[0])
    version = promote(trained[1].models["rfm"]["uri"]).version
    connect().set_registered_model_alias("small_churn", "champion", version)  # whatever it has earned
    return trained[0]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("trian experiment.toml", "No such command 'trian'. Did you mean 'train'?"),
        ("train", "Missing argument 'experiment'"),
        ("train experiment.toml --trails 3", "No such option: --trails (Possible options: --trials)"),
        ("train experiments.toml", "There is no experiments.toml; did you mean experiment.toml?"),
        ("train runs", "runs is a folder: it holds no experiment file."),
        ("train .", ". is a folder: name a file of it: experiment.toml"),
        ("train nowhere/experiment.toml", "There is no nowhere/experiment.toml"),
        ("train experiment.toml --set serch.trials=3", "unknown key 'serch'; did you mean 'search'?"),
        ("train experiment.toml --set search.trails=3", "unknown key 'trails'; did you mean 'trials'?"),
        ("train experiment.toml --set events.path=event.parquet", "did you mean"),
        ("train experiment.toml --set events.path=experiment.toml", "event files end in .parquet, .pq, .csv"),
        ("train experiment.toml --set events.columns.costumer_id=x", "neither canonical nor declared"),
        ("train experiment.toml --set 'events.profile=[\"contry\"]'", "report.fairness"),
        ("train experiment.toml --set events.duplicates=quarantin", "did you mean 'quarantine'?"),
        ("train experiment.toml --set task.kind=chrun", "no kind 'chrun'; did you mean 'churn'?"),
        ("train experiment.toml --set task.horizon_day=3", "did you mean 'horizon_days'?"),
        ("train experiment.toml --set task.cutoffs.every_day=3", "did you mean 'every_days'?"),
        ("train experiment.toml --set 'task.activity=[\"purchse\"]'", "Did you mean 'purchase'?"),
        ("train experiment.toml --set 'models.which=[\"gbtd\"]'", "no model to search 'gbtd'; did you mean 'gbdt'?"),
        ("train experiment.toml --set models.settings.gbdt.num_leafs=4", "did you mean 'num_leaves'?"),
        ("train experiment.toml --set models.settings.gbdt.num_leaves=many", "num_leaves is 'many'; write a number"),
        ("train experiment.toml --set 'features.groups=[\"volum\"]'", "did you mean 'volume'?"),
        ("train experiment.toml --set report.fairnes=[]", "did you mean 'fairness'?"),
        ("train experiment.toml --set 'report.fairness=[\"contry\"]'", "did you mean 'country'?"),
        ("train experiment.toml --set map.cohort=moth", "did you mean 'month'?"),
        ("train experiment.toml --set 'segments.which=[\"rmf\"]'", "no partition 'rmf'; did you mean 'rfm'?"),
        ("train experiment.toml --set segments.found.segment=4", "did you mean 'segments'?"),
        ("train experiment.toml --set 'segments.goals=[{metric=\"chrun\",at_most=0.3}]'", "did you mean 'churn'?"),
        ("segment experimnt.toml", "did you mean experiment.toml?"),
        ("promote small_churn@champoin", "did you mean small_churn@champion?"),
        ("promote small_chrn@champion", "did you mean 'small_churn'?"),
        ("promote nosuchrun", "it is no run and no model here. Registered are: small_churn"),
        ("score small_churn@champion --events event.parquet --out x.csv", "did you mean events.parquet?"),
        ("score small_churn@champion --events events.parquet", "Missing option '--out'"),
        ("score small_churn@champion --events events.parquet --out x.xlsx", "ends in .csv or .parquet"),
        ("score small_churn@champion --events events.parquet --out x.csv --as-of soon", "soon"),
        ("score small_churn@champion --events events.parquet --out x.csv --snapshots rows.csv", "There is no rows.csv"),
        ("score runs --events events.parquet --out x.csv", "runs"),
        ("compare small_churn@champion small_churn@chalenger", "There is: small_churn@ch"),
        ("compare small_churn@champion small_churn@champion --out x.pdf", ".html"),
        ("reproduce nosuchrun", "it is no run and no model here"),
        ("monitor nowhere --model small_churn@champion", "There is no nowhere"),
        ("monitor runs --model small_churn@champion --threshold spi=0.3", "did you mean 'psi'?"),
        ("monitor runs --model small_churn@champion --threshold psi=high", "psi"),
        ("map event.parquet", "did you mean events.parquet?"),
        ("map events.parquet --goal purchas", "Did you mean 'purchase'?"),
        ("map events.parquet --set map.cohrt=week", "did you mean 'cohort'?"),
        ("map events.parquet --columns customer_id", "write KEY=VALUE"),
        ("package small_churn@champoin", "did you mean small_churn@champion?"),
        ("serve nosuch:bento", "There is no bento 'nosuch:bento'"),
        ("simulate --custmers 3", "--customers"),
        ("draft event.parquet", "did you mean events.parquet?"),
        ("draft events.parquet --task chrun", "did you mean 'churn'?"),
        ("draft events.parquet --columns customer_id", "write OURS=THEIRS"),
    ],
)
def test_bad_input_ends_with_a_sentence_and_status_2(folder: Path, run_line, line: str, expected: str) -> None:  # type: ignore[no-untyped-def]
    code, text = run_line(line)
    assert code == 2, text
    assert expected in text
    assert "Traceback" not in text
    assert "pydantic" not in text


@pytest.mark.slow
def test_ctrl_c_prints_no_stack(folder: Path) -> None:
    """While models are fitted: one line, status 130, and nothing left running."""
    command = [sys.executable, "-m", "experiments.cli", "train", "experiment.toml", "--trials", "500"]
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).resolve().parents[2])}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, cwd=folder, env=environment,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    ) as running:  # fmt: skip
        assert running.stderr is not None
        lines = []
        for line in running.stderr:
            lines.append(line)
            if "1 of 500" in line:
                break
        time.sleep(1)
        running.send_signal(signal.SIGINT)
        text = "".join(lines) + running.stderr.read()
        code = running.wait(60)
    assert code == 130, text
    assert "Nothing is broken: run the same command again" in text
    assert "Traceback" not in text
