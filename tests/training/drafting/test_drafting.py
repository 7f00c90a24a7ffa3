"""The draft of an experiment file from a stranger's log: what is guessed, said, and refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from experiments.cli import app
from features.errors import ConfigError, DataError
from features.journeys.loading import load_log
from training.config.experiment import load_experiment
from training.drafting.columns import roles_of
from training.drafting.drafting import draft

START = pd.Timestamp("2024-01-01")


def log(n_customers: int = 600, days: int = 200, seed: int = 5) -> pd.DataFrame:
    """Visits and orders, about one in thirty days a customer."""
    rng = np.random.default_rng(seed)
    n = n_customers * days // 30
    return pd.DataFrame({
        "who": rng.integers(1000, 1000 + n_customers, n),
        "t": START + pd.to_timedelta(np.sort(rng.integers(0, days * 86_400, n)), unit="s"),
        "what": rng.choice(["visit", "order", "return of goods"], n, p=[0.6, 0.35, 0.05]),
        "worth": rng.integers(100, 500_000, n) / 100,
    })  # fmt: skip


@pytest.fixture
def german(tmp_path: Path) -> Path:
    """As a German spreadsheet writes it: semicolons, cp1252, its own dates and decimal commas."""
    rows = log()
    theirs = pd.DataFrame({
        "Kunden-Nr": rows["who"],
        "Vorgang": rows["what"].replace({"visit": "Besuch", "order": "Kauf", "return of goods": "Rückgabe"}),
        "gebucht am": rows["t"].dt.strftime("%d.%m.%Y %H:%M"),
        "Betrag (EUR)": [f"{value:,.2f}".translate(str.maketrans(",.", ".,")) for value in rows["worth"]],
        "Filiale": "Köln",
    })  # fmt: skip
    theirs.to_csv(tmp_path / "Umsätze 2024.csv", sep=";", index=False, encoding="cp1252")
    return tmp_path / "Umsätze 2024.csv"


def test_german_spreadsheet(german: Path, tmp_path: Path) -> None:
    drafted = draft(german, tmp_path / "churn.toml")
    events = drafted.experiment.events
    assert events.columns == {
        "customer_id": "Kunden-Nr", "timestamp": "gebucht am", "touchpoint": "Vorgang", "value": "Betrag (EUR)",
    }  # fmt: skip
    assert (events.encoding, events.time_format, events.decimal) == ("cp1252", "%d.%m.%Y %H:%M", ",")
    loaded = load_log(events)
    assert loaded.counts == {}
    assert loaded.journeys.n_events == len(log())
    assert np.sort(loaded.journeys.numbers["value"]).tolist() == sorted(log()["worth"])
    assert drafted.ready
    assert drafted.experiment.task.activity == ("Kauf",)  # type: ignore[union-attr]
    assert drafted.experiment.task.horizon_days == 30  # a fourth of 200 days holds no 60
    text = drafted.file.read_text(encoding="utf-8")
    assert "# touchpoints of the log: Besuch (" in text
    assert '# profile = ["Filiale"]' in text
    assert drafted.experiment.name == "ums_tze_2024_churn"


def test_rows_without_touchpoint_are_purchases(tmp_path: Path) -> None:
    log()[["who", "t", "worth"]].set_axis(["client", "day", "amount"], axis=1).to_parquet(tmp_path / "sales.parquet")
    drafted = draft(tmp_path / "sales.parquet", tmp_path / "sales.toml")
    assert drafted.experiment.events.touchpoint == "purchase"
    assert drafted.experiment.task.activity == ("purchase",)  # type: ignore[union-attr]
    assert any("every row is a purchase" in note for note in drafted.notes)
    assert drafted.ready


def test_canonical_names_need_no_mapping(tmp_path: Path) -> None:
    ours = log().set_axis(["customer_id", "timestamp", "touchpoint", "value"], axis=1)
    (tmp_path / "logs").mkdir()
    with gzip.open(tmp_path / "logs" / "part.csv.gz", "wt") as file:
        ours.to_csv(file, index=False)
    drafted = draft(tmp_path / "logs", tmp_path / "logs.toml", kind="conversion")
    assert drafted.experiment.events.columns == {}
    assert drafted.experiment.task.goal == ("order",)  # type: ignore[union-attr]


def test_columns_of_the_user_win(tmp_path: Path) -> None:
    log().rename(columns={"what": "kind"}).assign(id=range(len(log()))).to_csv(tmp_path / "log.csv", index=False)
    told = [
        "draft",
        str(tmp_path / "log.csv"),
        "--out",
        str(tmp_path / "x.toml"),
        "--columns",
        "customer_id=who",
        "--json",
    ]
    done = CliRunner().invoke(app, told)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1])["ready"]
    assert load_experiment(tmp_path / "x.toml").events.columns["customer_id"] == "who"


@pytest.mark.parametrize(
    ("values", "unit"), [([1_717_200_000, 1_717_300_000], "s"), ([1_717_200_000_123, 1_717_300_000_456], "ms")]
)
def test_numbers_that_are_times(values: list[int], unit: str) -> None:
    rows = pa.table({"user": [f"u{i % 30}" for i in range(60)], "ts": values * 30, "action": ["a", "b"] * 30})
    roles = roles_of(rows)
    assert roles.columns == {"customer_id": "user", "timestamp": "ts", "touchpoint": "action"}
    assert roles.time_unit == unit


def test_ambiguous_dates_are_noted(tmp_path: Path) -> None:
    rows = log().assign(t=lambda frame: frame["t"].dt.strftime("0%w/0%w/%Y").str.replace("00", "07"))
    rows.rename(columns={"what": "event"}).to_csv(tmp_path / "log.csv", index=False)
    drafted = draft(tmp_path / "log.csv", tmp_path / "x.toml", columns={"customer_id": "who"})
    assert any("%m/%d/%Y would read them, too" in note for note in drafted.notes)


def test_too_little_data_is_noted(tmp_path: Path) -> None:
    log(n_customers=30).to_csv(tmp_path / "log.csv", index=False)
    drafted = draft(tmp_path / "log.csv", tmp_path / "x.toml")
    assert not drafted.ready
    assert "Too little data" in drafted.notes[-1]
    assert drafted.file.exists()


def test_errors(german: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        draft(tmp_path / "none.csv")
    (tmp_path / "there.toml").touch()
    with pytest.raises(ConfigError, match=r"is there already: name another file with --out"):
        draft(german, tmp_path / "there.toml")
    with pytest.raises(ConfigError, match=r"--columns value=Preis: the columns are Kunden-Nr, Vorgang"):
        draft(german, tmp_path / "x.toml", columns={"value": "Preis"})
    with pytest.raises(ConfigError, match=r"There is no draft for a task of kind 'labels'\. There are: churn"):
        draft(german, tmp_path / "x.toml", kind="labels")
    (tmp_path / "odd.csv").write_text("a,b\n" + "x,y\n" * 50)
    with pytest.raises(DataError, match=r"no column looks like a customer_id\. Name it: --columns customer_id=THEIRS"):
        draft(tmp_path / "odd.csv", tmp_path / "x.toml")
    (tmp_path / "empty.csv").write_text("customer_id,timestamp,touchpoint\n")
    with pytest.raises(DataError, match="has no rows below its header"):
        draft(tmp_path / "empty.csv", tmp_path / "x.toml")
    assert not (tmp_path / "x.toml").exists()
