"""`journeylab monitor`: drifted and undrifted rows, labels that come late, thresholds, exit status, what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from experiments.cli import app
from features.errors import ConfigError, DataError
from features.journeys.journeys import Snapshots
from features.journeys.packing import pack
from features.privacy.keyed_hashes import new_key, write_key
from features.privacy.pseudonyms import Pseudonyms
from features.simulation.simulator import simulate
from models.boosting.gbdt import GBDT, GBDTSettings
from models.scoring.scorer import Scorer, visible_touchpoints
from models.scoring.training_reference import TrainingReference
from serving.champions.champions import Champions, Origin
from serving.monitor.files import RowFiles
from serving.monitor.monitoring import COLUMNS, AnswerMonitor, MonitorSettings
from training.monitoring.checks import MonitorThresholds
from training.monitoring.monitor import monitor
from training.monitoring.page import monitor_page
from training.monitoring.rows import read_rows
from training.reports.pages import render_page

DAY_US = 86_400_000_000
Rows = list[dict[str, Any]]
Write = Callable[..., Path]


class World:
    """A champion fitted on a third of some customers; the second was held out; the third is served."""

    def __init__(self, folder: Path) -> None:
        journeys = pack(simulate(n_customers=1500, days=200, seed=5).events)
        self.at = int(journeys.t.max()) - 40 * DAY_US
        self.journeys = journeys
        thirds = [np.arange(journeys.n_customers)[np.arange(journeys.n_customers) % 3 == part] for part in range(3)]
        fit, held, self.served = (self.of(customers) for customers in thirds)
        self.truth = _labels(self.served)
        model = GBDT(GBDTSettings(members=2, max_trees=40, min_data_in_leaf=10)).fit(fit, _labels(fit))
        scorer = Scorer(model, {"name": "demo", "kind": "churn"}, touchpoints=visible_touchpoints(fit))
        self.folder = scorer.save(folder / "demo")
        Origin("demo", "3").write(self.folder)
        self.reference = TrainingReference.of(scorer, fit, scorer.answers(held), held, {"auroc": 0.7})
        self.reference.save(self.folder)
        self.champions = Champions(folder)

    def of(self, customers: Any, later_us: int = 0) -> Snapshots:
        found = self.journeys.at(self.at + later_us, customers)
        return found.take(found.stop > found.start)

    def rows(self, snapshots: Snapshots, key: bytes = b"a key of the service") -> Rows:
        """As the service records them, but for the time."""
        rows: Rows = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("JOURNEYLAB_MONITOR_KEY", key.decode())
            patch.setattr("serving.monitor.monitoring.PAUSE_S", 0)
            patch.setattr("serving.monitor.monitoring.QUEUED", 10_000)
            watch = AnswerMonitor(MonitorSettings(None, 1e9), rows.extend)
            watch.start()
        scorer = self.champions.scorers["demo"]
        scores = scorer.answers(snapshots)["probability"]
        for row, customer in enumerate(snapshots.customer_ids):
            one = snapshots.take(np.array([row]))
            watch.record(self.champions, "demo", one, [float(scores[row])], [str(customer)])
        watch.close()
        assert watch.lost == 0
        for place, row in enumerate(rows):
            row["at"] = f"2024-06-{1 + place % 10:02d}T10:00:00Z"
        return rows


def _labels(snapshots: Snapshots) -> Any:
    since_days = (snapshots.cutoff - snapshots.journeys.t[snapshots.stop - 1]) / DAY_US
    drawn = np.random.default_rng(0).random(len(snapshots))
    return (drawn < 1 / (1 + np.exp(-(since_days - 5) / 4))).astype(np.int8)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def like(world: World) -> Rows:
    """Rows of customers like those of the training, at the same moment."""
    return world.rows(world.served)


@pytest.fixture(scope="module")
def later(world: World) -> Rows:
    """Rows about the same customers in a log that has stopped 90 days ago."""
    customers = world.served.customer
    return world.rows(world.of(customers, 130 * DAY_US))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to(*some: Rows) -> Path:
        for rows in some:
            RowFiles(tmp_path / "rows", 10**9).write(rows)
        return tmp_path / "rows"

    return to


def test_rows_like_the_training_set_off_no_alarm(world: World, like: Rows, write: Write) -> None:
    report = monitor(write(like), str(world.folder))
    assert report.alarms == ()
    assert report.figures["customers"] == len(world.served) == report.figures["rows"]
    assert set(report.checks["kind"]) == {"feature", "score", "missing", "touchpoint", "unknown"}
    assert (report.checks["kind"] == "feature").sum() == len(world.reference.names)
    assert list(report.days["rows"]) == [len(world.served) // 10 + (day < len(world.served) % 10) for day in range(10)]
    assert report.scores["served"].sum() == pytest.approx(1)
    json.dumps(report.to_dict(), allow_nan=False)


def test_chance_alone_sets_off_no_alarm(world: World, like: Rows, write: Write, tmp_path: Path) -> None:
    """However low the thresholds are: 20 small samples of customers like those of the training."""
    answers = [row for row in like if row["touchpoints"] is None]
    none = MonitorThresholds(psi=1e-9, score=1e-9, missing=1e-9, touchpoints=1e-9, unknown=0.0)
    rng, alarmed = np.random.default_rng(0), 0
    for _ in range(20):
        shutil.rmtree(tmp_path / "rows", ignore_errors=True)
        some = [answers[place] for place in rng.choice(len(answers), 110, replace=False)]
        alarmed += bool(monitor(write(some), str(world.folder), thresholds=none).alarms)
    assert alarmed <= 1


def test_rows_unlike_the_training_set_off_alarms(world: World, later: Rows, write: Write) -> None:
    report = monitor(write(later), str(world.folder))
    kinds = report.checks.loc[report.checks["alarm"], "kind"]
    assert {"feature", "score"} <= set(kinds)
    assert report.checks["alarm"].iloc[0]
    assert not report.checks["alarm"].iloc[-1]
    assert any("% in training" in words and "% served" in words for words in report.alarms)


def test_missing_columns_unknown_and_vanished_touchpoints(world: World, like: Rows, write: Write) -> None:
    rows = [dict(row) for row in like]
    for row in rows:
        if row["touchpoints"] is None:
            row["missing"] = ["channel"]
            row["unknown"] = row["events"] // 4
        else:
            row["touchpoints"] = {name: n for name, n in row["touchpoints"].items() if name != "visit"}
    report = monitor(write(rows), str(world.folder))
    alarms = report.checks[report.checks["alarm"]]
    assert set(zip(alarms["kind"], alarms["name"], strict=True)) == {
        ("missing", "channel"), ("unknown", "touchpoints"), ("touchpoint", "visit"),
    }  # fmt: skip
    assert "Journeys without any channel: 0.0% in training, 100.0% served." in report.alarms


def test_few_rows_are_said_and_not_judged(world: World, later: Rows, write: Write) -> None:
    report = monitor(write(later[:60]), str(world.folder))
    assert report.alarms == ()
    assert report.notes[0].startswith("Too few to judge: 60 rows count as 60 customers, and 100 are needed")


def test_one_customer_asked_often_is_one_customer(world: World, later: Rows, write: Write) -> None:
    often = [later[0] | {"stands_for": 10.0}] * 1000
    report = monitor(write(often), str(world.folder))
    assert (report.alarms, report.figures["effective_customers"]) == ((), 1.0)
    assert report.figures["answers"] == 10_000


def test_labels_that_come_late_are_joined(world: World, like: Rows, write: Write, tmp_path: Path) -> None:
    rows = write(like)
    key, labels = tmp_path / "key", tmp_path / "labels.csv"
    key.write_text(b"a key of the service".hex())
    frame = pd.DataFrame({"customer_id": world.served.customer_ids, "label": world.truth})
    frame = frame.assign(cutoff=pd.Timestamp(world.at, unit="us").floor("s"))
    frame.iloc[:200].to_csv(labels, index=False)
    report = monitor(rows, str(world.folder), labels=labels, key_file=key)
    assert report.alarms == ()
    assert report.outcomes is not None
    assert (report.outcomes.labelled, report.outcomes.positives) == (200, int(world.truth[:200].sum()))
    assert f"200 of {len(world.served):,} answers have a label by now." in report.notes
    assert 0.6 < report.outcomes.figures["auroc"] < 1
    assert len(report.outcomes.bins) == 10
    turned = frame.assign(label=1 - frame["label"])
    turned.to_csv(labels, index=False)
    wrong = monitor(rows, str(world.folder), labels=labels, key_file=key)
    assert {"auroc"} <= set(wrong.checks.loc[wrong.checks["alarm"], "kind"])
    frame.assign(label=0).iloc[:150].to_csv(labels, index=False)
    never = monitor(rows, str(world.folder), labels=labels, key_file=key)
    assert never.alarms == ()  # fewer than 10 of one kind judge nothing
    assert any("no metric that ranks" in note for note in never.notes)
    frame.assign(cutoff="2020-01-01").to_csv(labels, index=False)
    none = monitor(rows, str(world.folder), labels=labels, key_file=key)
    assert none.outcomes is not None
    assert none.outcomes.labelled == 0


def test_labels_by_pseudonym_need_no_key(world: World, like: Rows, write: Write, tmp_path: Path) -> None:
    pseudonyms = Pseudonyms(b"a key of the service")
    who = [pseudonyms.of(str(customer)) for customer in world.served.customer_ids]
    frame = pd.DataFrame({"who": who, "label": world.truth})
    frame.to_parquet(tmp_path / "labels.parquet")
    report = monitor(write(like), str(world.folder), labels=tmp_path / "labels.parquet")
    assert report.outcomes is not None
    assert report.outcomes.labelled == len(world.served)
    assert any("The labels have no cutoff" in note for note in report.notes)


def test_labels_that_cannot_be_used(
    world: World, like: Rows, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JOURNEYLAB_MONITOR_KEY", raising=False)
    monkeypatch.delenv("JOURNEYLAB_MONITOR_KEY_FILE", raising=False)
    rows, labels = write(like), tmp_path / "labels.csv"
    labels.write_text("customer_id,label\na,1\n")
    with pytest.raises(ConfigError, match="give the key of the service"):
        monitor(rows, str(world.folder), labels=labels)
    write_key(new_key(), tmp_path / "key")
    with pytest.raises(ConfigError, match="not the one that the service recorded with"):
        monitor(rows, str(world.folder), labels=labels, key_file=tmp_path / "key")
    for text, match in {
        "customer,label\na,1\n": "needs the columns customer_id",
        "who,label\na,1\na,0\n": "says 0 and 1 of 1 customers",
        "who,label\na,1\nb,2\n": "1 labels are neither 0 nor 1, the first in row 2",
    }.items():
        labels.write_text(text)
        with pytest.raises(DataError, match=match):
            monitor(rows, str(world.folder), labels=labels)


def test_rows_of_other_versions_are_listed_and_not_judged(world: World, like: Rows, later: Rows, write: Write) -> None:
    older = [row | {"version": "2", "reference": "0123456789ab", "touchpoints": None} for row in later]
    report = monitor(write(like, older), str(world.folder))
    assert report.alarms == ()
    assert report.versions.set_index("version")["judged"].to_dict() == {"2": False, "3": True}
    assert f"{len(older):,} rows are by other versions: they are listed, but not judged." in report.notes


def test_nothing_to_compare_is_an_error(world: World, like: Rows, write: Write, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no"):
        read_rows(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no rows"):
        read_rows(tmp_path)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="no rows of answers"):
        monitor(tmp_path / "empty.jsonl", str(world.folder))
    rows = write([row | {"version": "2", "reference": "0123456789ab"} for row in like])
    with pytest.raises(DataError, match=r"No row of 'demo' is by version 3.*the rows are by version 2"):
        monitor(rows, str(world.folder))
    with pytest.raises(DataError, match="No row is of 'demo': the rows are of other"):
        monitor(_file(tmp_path / "other.jsonl", [row | {"champion": "other"} for row in like]), str(world.folder))
    shutil.copytree(world.folder, tmp_path / "bare")
    (tmp_path / "bare" / "reference.json").unlink()
    with pytest.raises(DataError, match="without a reference of its training"):
        monitor(rows, str(tmp_path / "bare"))


def _file(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_incomplete_lines_and_other_times_are_left_out(world: World, like: Rows, tmp_path: Path) -> None:
    path = _file(tmp_path / "rows.jsonl", like)
    with path.open("a") as file:
        file.write('{"at":"2024-06-01T10\n[]\n{"at": 1}\n')
    served = read_rows(path, since="2024-06-03", until="2024-06-05T00:00:00+00:00")
    assert sorted(served.answers["at"].dt.day.unique()) == [3, 4]
    assert served.broken_lines == 3
    assert any("3 lines are incomplete" in note for note in monitor(path, str(world.folder)).notes)
    with pytest.raises(ConfigError, match="--since 'soon' is no time"):
        read_rows(path, since="soon")


def test_a_day_without_answers(world: World, like: Rows, write: Write) -> None:
    rows = [row for row in like if not row["at"].startswith("2024-06-05")]
    path = write(rows)
    assert monitor(path, str(world.folder)).alarms == ()
    report = monitor(path, str(world.folder), thresholds=MonitorThresholds(volume=0.5))
    assert report.alarms == ("0 answers on 2024-06-05: 0% of the median day's 45.",)


def test_thresholds_are_checked() -> None:
    assert MonitorThresholds.of(["psi=0.1", "fewest=50"]) == MonitorThresholds(psi=0.1, fewest=50)
    with pytest.raises(ConfigError, match="did you mean 'psi'"):
        MonitorThresholds.of(["psl=0.1"])
    with pytest.raises(ConfigError, match="given as name=value"):
        MonitorThresholds.of(["psi"])


def test_the_command_ends_with_status_3_past_a_threshold(
    world: World, like: Rows, later: Rows, write: Write, tmp_path: Path
) -> None:
    fine = _command(write(like), world, "--json")
    assert fine.exit_code == 0, fine.output
    found = json.loads(fine.stdout.splitlines()[-1])
    assert (found["alarm"], found["verdict"], found["version"]) == (False, "No alarm", "3")
    shutil.rmtree(tmp_path / "rows")
    out = tmp_path / "pages" / "monitor.html"
    told = _command(write(later), world, "--out", str(out))
    assert told.exit_code == 3
    assert told.stdout.splitlines()[-1].endswith("alarms")
    page, data = out.read_text(), json.loads(out.with_suffix(".json").read_text())
    assert data["alarm"] is True
    assert "Alarm. " in page
    for customer in world.served.customer_ids:
        assert f"{customer}<" not in page + told.output
        assert f'"{customer}"' not in json.dumps(data)


def _command(rows: Path, world: World, *words: str) -> Any:
    return CliRunner().invoke(app, ["monitor", str(rows), "--model", str(world.folder), *words])


def test_segments_are_compared_by_their_shares(world: World, like: Rows, tmp_path: Path) -> None:
    folder = tmp_path / "segments"
    shutil.copytree(world.folder, folder)
    segments = np.array(["s01", "s02", None], dtype=object)[np.arange(len(world.served)) % 3]
    scorer = Scorer.load(folder)
    reference = TrainingReference.of(scorer, world.served, {"segment": segments}, world.served)
    reference.save(folder)
    rows = [row | {"score": None, "segment": "s01", "reference": reference.id, "bins": None} for row in like]
    same = [row | {"segment": ("s01", "s02", None)[place % 3]} for place, row in enumerate(rows)]
    assert monitor(_file(tmp_path / "same.jsonl", same), str(folder)).alarms == ()
    report = monitor(_file(tmp_path / "all.jsonl", rows), str(folder))
    assert list(report.checks.loc[report.checks["alarm"], "name"]) == ["segment"]
    assert "s02" in render_page(monitor_page(report))


def test_rows_have_what_the_report_reads() -> None:
    from training.monitoring.rows import NEEDED

    assert set(NEEDED) == set(COLUMNS)


def test_a_training_leaves_a_reference(trained: Any) -> None:
    from training.monitoring.monitor import load_champion

    _, result = trained
    champion = load_champion(result.model_uri)
    assert len(champion.reference.names) > 5
    assert {"auroc", "brier", "base_rate"} <= set(champion.reference.metrics)
    assert champion.name == "small_churn"
