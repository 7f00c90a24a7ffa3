from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features.errors import ConfigError, DataError
from features.journeys.journeys import Journeys
from features.journeys.loading import load_journeys
from features.journeys.packing import pack
from features.labels.churn import ChurnTask
from features.labels.cutoffs import Ages, Counted, Dates
from training.config.experiment import Experiment, load_experiment

SHIPPED = sorted((Path(__file__).resolve().parents[3] / "experiments" / "configs").glob("*.toml"))
START = pd.Timestamp("2024-01-01")

PLAIN = """
name = "shop"
[events]
path = "log.csv"
[task]
kind = "churn"
activity = ["buy"]
active_days = 20
horizon_days = 10
"""


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """An experiment file of the shortest kind."""
    path = tmp_path / "shop.toml"
    path.write_text(PLAIN, encoding="utf-8")
    return path


def many_buyers(n_customers: int = 400, days: int = 100, seed: int = 1) -> Journeys:
    """Customers who buy about every twelve days."""
    rng = np.random.default_rng(seed)
    n = n_customers * days // 12
    t = START + pd.to_timedelta(rng.integers(0, days * 86_400, n), unit="s")
    return pack(
        pd.DataFrame({"customer_id": rng.integers(0, n_customers, n).astype(str), "timestamp": t, "touchpoint": "buy"})
    )


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_shipped_experiments_load(path: Path) -> None:
    experiment = load_experiment(path)
    assert experiment.file == path
    assert experiment.events.path.is_absolute()
    dumped = json.loads(json.dumps(experiment.model_dump(mode="json")))
    assert Experiment.model_validate(dumped).model_dump() == experiment.model_dump()


@pytest.mark.parametrize(("name", "label"), [("online_retail_churn", "churned"), ("bpi2012_conversion", "converted")])
def test_label_tables_equal_the_reference(shared: Path, name: str, label: str) -> None:
    file = next(path for path in SHIPPED if path.stem == name)
    data = shared / "data" / f"{name.rpartition('_')[0]}.csv.gz"
    experiment = load_experiment(file, [f"events.path={data}"])
    table = experiment.build_labels(load_journeys(experiment.events))
    expected = pd.read_parquet(shared / "tasks" / f"{name}.parquet").rename(columns={label: "label"})
    assert set(table.columns) == set(expected.columns)
    for column in expected.columns:
        assert (table[column].to_numpy() == expected[column].to_numpy()).all(), column


def test_defaults_and_overrides(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = load_experiment(plain)
    assert experiment.events.path == (tmp_path / "log.csv").resolve()  # relative to the file
    assert experiment.task.cutoffs == Counted()
    assert (experiment.search.trials, experiment.models.which, experiment.search_seed) == (30, ("gbdt",), 7)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    overrides = [
        "events.path=my/log.csv", "search.trials=5", "search.seed = 3", "task.activity=[\"buy\", \"pay\"]",
        "features.windows_days=[7, 30]", "name=other", "events.columns.customer_id=who",
        "events.profile_table={path=\"crm.csv\", columns=[\"plan\"]}", "task.cutoffs={every_days=7, n_train=3}",
    ]  # fmt: skip
    changed = load_experiment(plain, overrides)
    assert changed.events.path == (elsewhere / "my/log.csv").resolve()  # relative to the working directory
    assert changed.events.profile_table is not None
    assert changed.events.profile_table.path == (elsewhere / "crm.csv").resolve()
    assert (changed.search.trials, changed.search_seed, changed.name) == (5, 3, "other")
    assert isinstance(changed.task, ChurnTask)
    assert changed.task.activity == ("buy", "pay")
    assert changed.task.cutoffs == Counted(every_days=7, n_train=3)
    assert changed.features == {"windows_days": [7, 30]}
    assert changed.overrides == tuple(overrides)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tasks.kind=churn", "the file: unknown key 'tasks'; did you mean 'task'"),
        ("task.horizn_days=3", "task: unknown key 'horizn_days'; did you mean 'horizon_days'"),
        ("search.trails=3", "search: unknown key 'trails'; did you mean 'trials'"),
        ("events.adaptor=bpi2012", "events: unknown key 'adaptor'; did you mean 'adapter'"),
        ("events.profile_table={path=\"a\", colums=[]}", "events.profile_table: unknown key 'colums'"),
        ("features.top_item=3", "features: unknown key 'top_item'; did you mean 'top_items'"),
        ("features.top_items=0", "top_items: input should be greater"),
        ("task.cutoffs.evry_days=3", "task.cutoffs: unknown key 'evry_days'; did you mean 'every_days'"),
        ("task.cutoffs={train=[2024-02-01], tst=[2024-03-01]}", "task.cutoffs: unknown key 'tst'; did you mean 'test'"),
        ("task.cutoffs={train=[2024-02-01], every_days=3}", "mix two ways to write cutoffs"),
        ("task.cutoffs={train=[], test=[2024-03-01]}", "task.cutoffs.train: name at least one"),
        ("task.cutoffs={train=[3], test=[2024-03-01]}", "task.cutoffs.train.0: write a date"),
        ("task.cutoffs={train={first=2024-03-01,last=2024-02-01,every_days=1}, test=[2024-03-01]}", "is before first"),
        ("task.cutoffs={ages_days=[1]}", "ages_days is for conversion"),
        ("task.kind=chrun", "no kind 'chrun'; did you mean 'churn'"),
        ("task.horizon_days=-1", "task.horizon_days: input should be greater than 0"),
        ("task=3", "write a table"),
        ("name=Big Shop", "a name is lower case letters"),
        ("models.which=[\"recency\"]", "'recency' is a baseline"),
        ("models.which=[\"xgb\"]", "no model to search 'xgb'; did you mean 'gbdt'"),
        ("models.settings.gru={}", "settings for 'gru'"),
        ("search.trials=many", "search.trials: input should be a valid integer"),
        ("search.trials", "write KEY=VALUE"),
        ("name.first=3", "'name' is a value, not a table"),
    ],
)  # fmt: skip
def test_mistakes_name_the_key(plain: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")) as caught:
        load_experiment(plain, [override])
    assert override.partition("=")[0] in str(caught.value)  # where the mistake was made


def test_a_misspelt_key_names_the_file(plain: Path) -> None:
    plain.write_text(PLAIN.replace("active_days", "activ_days"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"shop\.toml:\n  task: unknown key 'activ_days'; did you mean 'active_days'"):
        load_experiment(plain)


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No experiment file"):
        load_experiment(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(ConfigError, match=r"bad\.toml cannot be read as TOML"):
        load_experiment(tmp_path / "bad.toml")


def churn(**cutoffs: object) -> Experiment:
    task = {"kind": "churn", "activity": ["buy"], "active_days": 20, "horizon_days": 10}
    task |= {"cutoffs": cutoffs} if cutoffs else {}
    return Experiment.model_validate({"name": "x", "events": {"path": "x"}, "task": task})


def test_cutoffs_from_the_end_of_the_log() -> None:
    build = churn(every_days=7, n_train=3, n_test=2).labels(many_buyers())
    cutoffs = build.table.groupby("split")["cutoff"].unique()
    assert list(cutoffs["test"]) == [pd.Timestamp("2024-03-23"), pd.Timestamp("2024-03-30")]  # ends 04-09 at night
    assert list(cutoffs["train"]) == list(pd.to_datetime(["2024-02-28", "2024-03-06", "2024-03-13"]))
    assert "train 2024-02-28 to 2024-03-13 (3), test 2024-03-23 to 2024-03-30 (2)" in build.notes[0]
    few = churn(every_days=14, n_train=50).labels(many_buyers())
    assert "5 of 50 training cutoffs" in few.notes[1]
    assert few.table["cutoff"].min() >= START + pd.Timedelta(days=20)


def test_dates_are_lists_ranges_or_moments() -> None:
    rows = churn(
        train=["2024-02-01T12:00:00+02:00", "2024-02-11"],
        test={"first": "2024-03-01", "last": "2024-03-09", "every_days": 5},
    )
    assert isinstance(rows.task.cutoffs, Dates)
    table = rows.build_labels(many_buyers())
    assert list(table["cutoff"].unique()) == list(
        pd.to_datetime(["2024-02-01 10:00", "2024-02-11", "2024-03-01", "2024-03-06"], format="ISO8601")
    )
    assert table.loc[table["split"] == "test", "cutoff"].min() == pd.Timestamp("2024-03-01")


def test_test_cutoffs_follow_closed_training_labels() -> None:
    message = r"training cutoff 2024-02-25 closes on 2024-03-06, after the test cutoff 2024-03-05.*end by 2024-02-24"
    with pytest.raises(DataError, match=message):
        churn(train=["2024-02-01", "2024-02-25"], test=["2024-03-05"]).build_labels(many_buyers())


def test_cutoffs_outside_the_log_are_an_error() -> None:
    with pytest.raises(DataError, match=r"2024-04-05: its window of 10 days is not fully observed"):
        churn(train=["2024-02-01"], test=["2024-04-05"]).build_labels(many_buyers())
    with pytest.raises(DataError, match=r"2023-06-01: nothing is known before it, the log starts at 2024-01-01"):
        churn(train=["2023-06-01"], test=["2024-03-05"]).build_labels(many_buyers())


def test_too_little_data_is_an_error() -> None:
    small = many_buyers(n_customers=60)
    with pytest.raises(
        DataError, match=r"Too little data: \d+ positives and \d+ negatives in \d+ training rows; fewer than 100"
    ):
        churn(train=["2024-02-01"], test=["2024-03-01"]).build_labels(small)
    allowed = churn(train=["2024-02-01"], test=["2024-03-01"]).model_copy(update={"allow_small": True})
    assert len(allowed.build_labels(small))
    with pytest.raises(DataError, match=r"Too little history: the log covers 2\d\.\d days"):
        churn().build_labels(many_buyers(days=25))
    with pytest.raises(DataError, match=r"is too short for a test cutoff and a training cutoff"):
        churn().build_labels(many_buyers(days=35))


def test_equal_labels_are_an_error() -> None:
    days = pd.DataFrame({"timestamp": pd.date_range(START, periods=100, freq="D")})
    every_day = days.merge(pd.DataFrame({"customer_id": np.arange(200).astype(str)}), how="cross").assign(
        touchpoint="buy"
    )
    experiment = churn(train=["2024-02-01"], test=["2024-03-01"]).model_copy(update={"allow_small": True})
    with pytest.raises(DataError, match="All training labels are equal: 0 positives and 200 negatives"):
        experiment.build_labels(pack(every_day))


def conversion(**cutoffs: object) -> Experiment:
    task = {"kind": "conversion", "goal": ["buy"], "horizon_days": 5, "active_days": 30, "cutoffs": cutoffs}
    return Experiment.model_validate({"name": "x", "events": {"path": "x"}, "task": task, "allow_small": True})


def visitors() -> Journeys:
    rng = np.random.default_rng(2)
    first = START + pd.to_timedelta(rng.integers(0, 60 * 24, 600), unit="h")
    visits = pd.DataFrame({"customer_id": np.arange(600).astype(str), "timestamp": first, "touchpoint": "look"})
    later = visits.assign(timestamp=first + pd.to_timedelta(rng.integers(24, 240, 600), unit="h"), touchpoint="buy")
    return pack(pd.concat([visits, later]))


def test_ages_split_by_share_or_date() -> None:
    assert isinstance(conversion(ages_days=[2]).task.cutoffs, Ages)
    build = conversion(ages_days=[2], test_share=0.3).labels(visitors())
    rows = build.table.groupby("split")["cutoff"].agg(["min", "max", "size"])
    assert rows.loc["train", "max"] + pd.Timedelta(days=5) <= rows.loc["test", "min"]
    assert 0.25 < rows.loc["test", "size"] / (rows["size"].sum() + 50) < 0.4
    assert len(build.notes) == 2
    dated = conversion(
        ages_days=[2], train_until="2024-02-01", test_from="2024-02-03", test_until="2024-02-20"
    ).build_labels(visitors())
    rows = dated.groupby("split")["cutoff"].agg(["min", "max"])
    assert rows.loc["train", "max"] <= pd.Timestamp("2024-01-27")
    assert rows.loc["test", "min"] >= pd.Timestamp("2024-02-03")
    assert rows.loc["test", "max"] <= pd.Timestamp("2024-02-15")


def test_label_table(tmp_path: Path) -> None:
    log, rng = visitors(), np.random.default_rng(3)
    table = pd.DataFrame({"who": np.arange(600).astype(str), "when": "2024-02-10", "left": rng.integers(0, 2, 600)})
    table.loc[:399, "when"] = "2024-01-31"
    table.to_csv(tmp_path / "labels.csv", index=False)
    task = {
        "kind": "labels", "path": str(tmp_path / "labels.csv"), "horizon_days": 7,
        "columns": {"customer_id": "who", "cutoff": "when", "label": "left"},
    }  # fmt: skip
    experiment = Experiment.model_validate({"name": "x", "events": {"path": "x"}, "task": task, "allow_small": True})
    build = experiment.labels(log)
    assert build.quarantine is not None
    assert (build.table["split"] == "train").sum() + build.quarantine.num_rows >= 400
    assert set(build.table.loc[build.table["split"] == "test", "cutoff"]) == {pd.Timestamp("2024-02-10")}
    given = table.assign(split=np.where(table["when"] == "2024-01-31", "train", "test"))
    given.to_csv(tmp_path / "labels.csv", index=False)
    pd.testing.assert_frame_equal(experiment.build_labels(log), build.table, check_like=True)
    given.assign(split=np.where(table["when"] == "2024-01-31", "test", "train")).to_csv(
        tmp_path / "labels.csv", index=False
    )
    with pytest.raises(DataError, match="a model would be tested on what it has seen"):
        experiment.build_labels(log)


def test_an_empty_split_is_an_error() -> None:
    with pytest.raises(DataError, match=r"There is no test row among \d+ labelled snapshots \(from "):
        conversion(ages_days=[2], test_from="2025-01-01", train_until="2024-02-01").build_labels(visitors())
