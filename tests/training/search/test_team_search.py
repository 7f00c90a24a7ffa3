"""A search that several processes share on a real PostgreSQL: each trial once, whoever dies, and the server too."""

from __future__ import annotations

import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from rich.console import Console

from experiment_files import SMALL_GBDT, write_experiment
from features.errors import ConfigError
from features.simulation.simulator import simulate
from postgres_server import Cluster, cluster, programs
from training.search import storage as search_storage
from training.search.folder import prepare
from training.search.report import parameter_importance
from training.search.search import SearchResult
from training.search.storage import TeamStorage, address
from training.search.team_search import PlannedSearch, _helper_folder, help_search, leading, wait_for_study
from training.search.trials import SearchStudy, TrialTakenOver, study_name

pytestmark = pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed")

# A model of one number, so that a trial takes milliseconds. Workers import it by name.
CATALOGUE = """
import time
from pathlib import Path
import numpy as np


class Fake:
    def __init__(self, settings):
        self.settings = settings
    def fit(self, snapshots, labels):
        time.sleep(self.settings.get("sleep_s", 0.0))
        if self.settings.get("hang") and not Path(self.settings["hang"]).exists():
            Path(self.settings["hang"]).touch()
            time.sleep(600)
        self.rate = float(np.mean(labels))
        return self
    def predict(self, snapshots):
        odd = snapshots.customer % 2
        return np.clip(self.rate + (odd - 0.5) * 0.5 * (1 - abs(self.settings["x"] - 0.3)), 0.01, 0.99)

def make(kind, settings):
    return Fake(settings)

def search_starts(kind):
    return []


def search_space(kind, trial):
    return {"x": trial.suggest_float("x", 0.0, 1.0), "n": trial.suggest_int("n", 1, 5)}
"""
UPTIME = "select extract(epoch from now() - pg_postmaster_start_time())"
# What another machine would run: the same rows, a folder of its own.
ELSEWHERE = """
import json, sys, time
from pathlib import Path
import tests_of_team as team
from training.search import storage as search_storage
search_storage.GRACE_S = 3
url, folder, options = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
folder.with_suffix(".ready").touch()
while not folder.with_name("go").exists():
    time.sleep(0.02)
result = team.run(url, folder, **options)
owner = (folder / "owner").read_text()
ended = [t.number for t in result.study.trials if t.user_attrs["worker"].startswith(owner) and t.state.name != "FAIL"]
print(json.dumps({"ended": ended, "trials": result.trials["log_loss"].fillna(-1).tolist()}))
"""
WORLD = """
import numpy as np, pandas as pd
from features.journeys.packing import pack
from training.search.folder import Job
from training.search.search import search
from training.data.splits import Fold, OverlapReport
APART = OverlapReport(0, 40, 0, 0.0, 0.0, 40)
FOLDS = [Fold(f"fold_{k}", np.arange(40), np.arange(40 + 20 * k, 60 + 20 * k), APART) for k in range(3)]

def rows():
    who = [f"c{i}" for i in range(100)]
    log = pd.DataFrame({"customer_id": who, "timestamp": pd.Timestamp("2024-01-01"), "touchpoint": "visit"})
    snapshots = pack(log).at("2024-02-01")
    noise = np.random.default_rng(0).random(100) < 0.2
    return snapshots, (snapshots.customer % 2 ^ noise).astype(np.int8)

def job(seed=1, fixed=None):
    return Job.of("fake", *rows(), FOLDS, seed=seed, fixed=fixed, catalogue="fake_of_team")

def run(url, folder, fixed=None, **options):
    return search(job(fixed=fixed), folder=folder, storage=url, **{"trials": 8} | options)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    with cluster() as running:
        yield running


@pytest.fixture
def url(server: Cluster) -> str:
    return server.database(f"search_{uuid.uuid4().hex[:8]}")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same rows for every process, `run(url, folder, **options)`, and a short grace for silent processes."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "fake_of_team.py").write_text(CATALOGUE)
    (tmp_path / "path" / "tests_of_team.py").write_text(WORLD)
    monkeypatch.syspath_prepend(tmp_path / "path")
    monkeypatch.setattr(search_storage, "GRACE_S", 3)
    monkeypatch.delitem(sys.modules, "tests_of_team", raising=False)
    import tests_of_team

    return tests_of_team


def elsewhere(tmp_path: Path, url: str, folder: str, **options: Any) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(tmp_path / "path"), *(each for each in sys.path if each)])
    return subprocess.Popen(
        [sys.executable, "-c", ELSEWHERE, url, str(tmp_path / folder), json.dumps(options)],
        env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def together(tmp_path: Path, *folders: str) -> None:
    """Let them go once all have loaded what they need, however busy the machine is."""
    until = time.monotonic() + 120
    while not all((tmp_path / f"{folder}.ready").exists() for folder in folders):
        assert time.monotonic() < until, "a process did not start"
        time.sleep(0.02)
    (tmp_path / "go").touch()


def comparable(result: SearchResult) -> pd.DataFrame:
    return result.trials.drop(columns="seconds")


def test_storage_and_folder_give_the_same_trials(world: Any, url: str, tmp_path: Path) -> None:
    told: list[int] = []
    here = world.run(None, tmp_path / "here", trials=12)
    world.run(url, tmp_path / "shared", trials=5)
    shared = world.run(url, tmp_path / "shared", trials=12, on_trial=lambda trial: told.append(trial.number))
    pd.testing.assert_frame_equal(comparable(shared), comparable(here))
    np.testing.assert_array_equal(np.concatenate(shared.scores), np.concatenate(here.scores))
    assert told == list(range(12))
    assert len(parameter_importance(shared.study)) == len(parameter_importance(here.study))
    # A machine that has done nothing gets all of it from the storage.
    other = world.run(url, tmp_path / "other", trials=12)
    pd.testing.assert_frame_equal(comparable(other), comparable(here))
    np.testing.assert_array_equal(np.concatenate(other.scores), np.concatenate(here.scores))


def test_processes_share_trials(world: Any, url: str, tmp_path: Path) -> None:
    options = {"trials": 14, "fixed": {"sleep_s": 0.1}}
    both = [elsewhere(tmp_path, url, name, **options) for name in ("a", "b")]
    together(tmp_path, "a", "b")
    result = [json.loads(process.communicate(timeout=120)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(result[0]["ended"] + result[1]["ended"]) == list(range(14))
    assert min(len(each["ended"]) for each in result) >= 3
    assert result[0]["trials"] == result[1]["trials"]


def test_killed_process_leaves_its_trial_to_another(world: Any, url: str, tmp_path: Path) -> None:
    hang = tmp_path / "hangs"
    options: dict[str, Any] = {"trials": 3, "fixed": {"hang": str(hang)}}
    killed = elsewhere(tmp_path, url, "killed", **options)
    together(tmp_path, "killed")
    until = time.monotonic() + 60
    while not hang.exists() and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    result = world.run(url, tmp_path / "other", **options)
    assert list(result.trials["number"]) == [0, 1, 2]
    assert set(result.trials["state"]) <= {"complete", "pruned"}
    expected = world.run(None, tmp_path / "whole", **options)
    assert result.trials["param_x"][0] == expected.trials["param_x"][0]


def study_of(world: Any, url: str, folder: Path, worker: str) -> SearchStudy:
    prepare(world.job(), folder)
    return SearchStudy(world.job(), TeamStorage(folder, url), worker)


def silence(server: Cluster, url: str) -> None:
    """Make the last heartbeats, and the start of the server, long ago."""
    time.sleep(max(0.0, 4.0 - float(str(server.sql(UPTIME, "postgres")[0][0]))))
    server.sql("update trial_heartbeats set heartbeat = '2000-01-01'", url.rsplit("/", 1)[1])


def test_trial_fails_after_five_deaths(world: Any, url: str, tmp_path: Path, server: Cluster) -> None:
    studies = [study_of(world, url, tmp_path / f"s{number}", f"owner_{number}/0") for number in range(6)]
    studies[0].set_goal(1)
    first = studies[0].ask()
    assert first is not None
    for study in studies[1:5]:
        silence(server, url)
        again = study.ask()
        assert again is not None
        assert (again.number, again.params) == (0, first.params)
    silence(server, url)
    other = studies[5].ask()
    assert other is not None
    assert other.number == 1
    assert studies[5].trials()[0].error == "5 processes died over it, it fell silent"
    for study in studies:
        study.storage.close()


def test_trial_without_heartbeats_changes_its_process(world: Any, url: str, tmp_path: Path, server: Cluster) -> None:
    one, other = (study_of(world, url, tmp_path / name, f"{name}/0") for name in ("one", "other"))
    with closing(one.storage), closing(other.storage):
        one.set_goal(1)
        trial = one.ask()
        assert trial is not None
        assert other.ask() is None, "its heartbeat is fresh"
        silence(server, url)
        assert other.ask() is not None
        np.save(tmp_path / "one" / "scores" / "trial_0000_fold_0.npy", np.full(20, 0.5))
        for report in (lambda: one.report(trial, 0, 0.5, 1.0), lambda: one.report_epoch(trial, 0, 0, 0.5)):
            with pytest.raises(TrialTakenOver):
                report()


def test_server_restart_loses_no_trial(world: Any, tmp_path: Path) -> None:
    with cluster() as own:
        url = own.database("search")
        before: list[Any] = []

        def restart(trial: Any) -> None:
            before.append((trial.number, trial.state, trial.log_loss))
            if trial.number == 3:
                own.stop()
                threading.Timer(1.5, own.start).start()

        shown = io.StringIO()
        other = elsewhere(tmp_path, url, "other", trials=12, fixed={"sleep_s": 0.1})
        together(tmp_path, "other")
        result = world.run(
            url, tmp_path / "s", trials=12, fixed={"sleep_s": 0.1}, on_trial=restart,
            progress=Console(file=shown, width=200),
        )  # fmt: skip
        ended = json.loads(other.communicate(timeout=120)[0])["ended"]
        assert "does not answer" in shown.getvalue()
        assert own.password not in shown.getvalue()
        finished = result.trials[result.trials["state"] != "failed"]  # begun twice while the server restarted
        after = [(trial.number, trial.state, trial.log_loss) for trial in finished.itertuples()]
        assert len(after) == 12
        assert set(finished["state"]) <= {"complete", "pruned"}
        assert [(n, s) for n, s, _ in sorted(before)] == [(n, s) for n, s, _ in after]
        assert len(set(finished["param_x"])) == 12
        assert len(ended) == len(set(ended)) > 0


def test_helper_waits_for_a_search_and_does_its_trials(world: Any, url: str, tmp_path: Path) -> None:
    desk = tmp_path / "helper"
    with pytest.raises(ConfigError, match="Start `journeylab train` with that storage first"):
        wait_for_study(url, world.job(), desk, 0.0)
    with leading(url, [PlannedSearch(world.job(), 5)], tmp_path / "lead"):
        wait_for_study(url, world.job(), desk, 0.0)
        with pytest.raises(ConfigError, match="its seed differ"):
            wait_for_study(url, world.job(seed=2), desk, 0.0)
        with (
            pytest.raises(ConfigError, match="Another `journeylab train` leads"),
            leading(url, [PlannedSearch(world.job(), 5)], tmp_path / "other"),
        ):
            pass
        assert help_search(world.job(), desk / "search_fake", url, 1) == 5
        assert help_search(world.job(seed=2), desk / "search_fake", url, 1) == 0  # it has no goal
    with leading(url, [PlannedSearch(world.job(), 5)], tmp_path / "other"):
        pass  # its place is free
    result = world.run(url, tmp_path / "s", trials=5)
    assert list(result.trials["number"]) == [0, 1, 2, 3, 4]


def test_each_helper_has_a_folder(tmp_path: Path) -> None:
    with _helper_folder(tmp_path) as one, _helper_folder(tmp_path) as other:
        assert (one.name, other.name) == ("work-1", "work-2")


def test_folders_of_shared_and_local_searches_are_separate(world: Any, url: str, tmp_path: Path) -> None:
    world.run(None, tmp_path / "own", trials=1)
    with pytest.raises(ConfigError, match="is not shared"):
        world.run(url, tmp_path / "own", trials=1)
    world.run(url, tmp_path / "shared", trials=1)
    with pytest.raises(ConfigError, match="a share of a search on a storage"):
        world.run(None, tmp_path / "shared", trials=1)


def test_scores_of_a_deleted_study_are_dropped(world: Any, url: str, tmp_path: Path) -> None:
    world.run(url, tmp_path / "s", trials=2)
    scores = tmp_path / "s" / "scores" / "trial_0000_fold_0.npy"
    np.save(scores, np.full(20, 0.5))
    with closing(TeamStorage(tmp_path, url)) as storage:
        optuna.delete_study(study_name=study_name(world.job()), storage=storage)
    world.run(url, tmp_path / "s", trials=2)
    assert not np.array_equal(np.load(scores), np.full(20, 0.5))


def test_storage_errors_hide_the_password(server: Cluster, url: str, tmp_path: Path) -> None:
    for wrong in ("sqlite:///search.db", "mysql://me@host/db", "nonsense"):
        with pytest.raises(ConfigError, match="A search is shared on PostgreSQL"):
            TeamStorage(tmp_path, wrong)
    with pytest.raises(ConfigError, match="password authentication failed") as caught:
        TeamStorage(tmp_path, url.replace(server.password, "not-the-password"))
    assert "not-the-password" not in str(caught.value)
    with pytest.raises(ConfigError, match="does not exist"):
        TeamStorage(tmp_path, server.url("nowhere"))
    server.sql("create table registered_models (name text)", url.rsplit("/", 1)[1])
    with pytest.raises(ConfigError, match="holds MLflow's tables"):
        TeamStorage(tmp_path, url)


def test_addresses_use_the_installed_driver() -> None:
    assert address("postgres://me:secret@db/search").drivername == "postgresql+psycopg"
    assert "secret" not in str(address("postgresql://me:secret@db/search"))


# The command line


def command(*arguments: str, folder: Path, url: str, log: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment |= {"JOURNEYLAB_STORAGE": url, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with (folder / log).open("ab") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "experiments.cli", *arguments, "--json"],
            cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=said, text=True, start_new_session=True,
        )  # fmt: skip


@pytest.mark.slow
def test_commands_share_a_search_and_record_no_password(server: Cluster, url: str, tmp_path: Path) -> None:
    """`train` is killed with -9 while `work` helps, and run again: everything is there once."""
    database = url.rsplit("/", 1)[1]
    simulate(n_customers=600, days=320, seed=1).save(tmp_path)
    write_experiment(tmp_path, SMALL_GBDT, name="kill_search")
    here: dict[str, Any] = {"folder": tmp_path, "url": url}
    train = ("train", "experiment.toml", "--trials", "9")
    helper = command("work", "experiment.toml", "--wait", "120", **here, log="work.txt")
    killed = command(*train, **here, log="train.txt")
    until = time.monotonic() + 240
    finished = "select count(*) from trials where state in ('COMPLETE', 'PRUNED')"
    while time.monotonic() < until and killed.poll() is None:
        tables = server.sql("select count(*) from pg_tables where tablename = 'trials'", database)
        if tables[0][0] and int(str(server.sql(finished, database)[0][0])) >= 2:
            break
        time.sleep(0.2)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    time.sleep(1.0)
    again = command(*train, **here, log="train.txt")
    told = [json.loads(process.communicate(timeout=300)[0].splitlines()[-1]) for process in (again, helper)]
    assert (again.returncode, helper.returncode) == (0, 0), (tmp_path / "train.txt").read_text()
    assert told[1]["total"] >= 1

    states = server.sql("select state, count(*) from trials group by state", database)
    assert sum(int(str(count)) for state, count in states if state in ("COMPLETE", "PRUNED")) == 9
    assert {state for state, _ in states} <= {"COMPLETE", "PRUNED"}
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as store:
        trials = store.execute("select value from tags where key = 'trial'").fetchall()
    assert sorted(int(number) for (number,) in trials) == list(range(9))
    secret = server.password.encode()
    assert [path for path in tmp_path.rglob("*") if path.is_file() and secret in path.read_bytes()] == []
    assert server.password not in json.dumps(told)
