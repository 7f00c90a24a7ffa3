"""Other champions take the place of those in service, while requests are answered, and none fails."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest

from features.errors import ConfigError
from http_client import Client
from serving.api.application import Application
from serving.api.warm_up import warm_up
from serving.bento import swap as swapping
from serving.bento.swap import champions_of, pointer_of, swap
from serving.champions.champions import Champions, Origin
from serving.live.live import LiveChampions, point

BODY = {"events": [{"timestamp": "2024-05-01", "touchpoint": "visit"}], "as_of": "2024-06-01"}


@pytest.fixture
def versions(scoring_folder: Path, tmp_path: Path) -> list[Path]:
    """Two folders of champions, the same model as version 1 and 2."""
    folders = []
    for version in ("1", "2"):
        folder = tmp_path / version
        shutil.copytree(scoring_folder, folder / "demo_churn")
        Origin("demo_churn", version, "champion").write(folder / "demo_churn")
        folders.append(folder)
    return folders


def test_no_request_fails_while_champions_are_swapped(versions: list[Path], tmp_path: Path) -> None:
    pointer = tmp_path / "pointer"
    point(pointer, versions[0])
    live = LiveChampions(Champions(versions[0]), pointer)
    client = Client(Application(live))
    answers: list[tuple[int, str]] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            answer = client.post("/churn", json=BODY)
            answers.append((answer.status_code, answer.json()["model"]["version"]))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(1, 6):
        point(pointer, versions[turn % 2])
        assert live.update(warm_up)
        assert client.get("/model").json()["models"][0]["version"] == str(turn % 2 + 1)
    done.set()
    for thread in threads:
        thread.join()
    assert {status for status, _ in answers} == {200}
    assert {version for _, version in answers} <= {"1", "2"}
    assert len(answers) > 5


def test_broken_champions_leave_the_old_ones(
    versions: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pointer = tmp_path / "pointer"
    live = LiveChampions(Champions(versions[0]), pointer)
    client = Client(Application(live))
    assert not live.update(warm_up), "no pointer, no swap"
    (versions[1] / "demo_churn" / "model.json").write_text("{}")
    for wrong in (versions[1], tmp_path / "nowhere"):
        point(pointer, wrong)
        assert not live.update(warm_up)
        assert not live.update(warm_up), "it is not tried again and again"
        assert client.post("/churn", json=BODY).json()["model"]["version"] == "1"
    assert caplog.text.count("the champions stay as they are") == 2
    assert str(tmp_path) not in caplog.text


def test_watch_updates(versions: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.live.live.CHECK_INTERVAL_S", 0.01)
    pointer, updated = tmp_path / "pointer", threading.Event()
    live = LiveChampions(Champions(versions[0]), pointer)
    live.watch(lambda champions: updated.set())
    point(pointer, versions[1])
    assert updated.wait(10)


def test_swap_waits_until_the_service_answers_with_them(
    versions: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNEYLAB_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(swapping, "WITHIN_S", 0.3)
    bento = tmp_path / "bento"
    shutil.copytree(versions[1], bento / "src" / "champions")
    (bento / "bento.yaml").write_text("")
    with pytest.raises(ConfigError, match="No service on port 4000"):
        swap(str(bento), port=4000)
    with pytest.raises(ConfigError, match="no bento"):
        champions_of(str(tmp_path / "nothing"))
    point(pointer_of(4000), versions[0])
    with pytest.raises(Exception, match="back where it was"):
        swap(str(bento), port=4000)
    assert pointer_of(4000).read_text().strip() == str(versions[0].resolve())
    monkeypatch.setattr(swapping, "_in_service", lambda port: Champions(versions[1]).identity)
    assert swap(str(bento), port=4000) == {"demo_churn": "2"}
    assert pointer_of(4000).read_text().strip() == str((bento / "src" / "champions").resolve())


def test_identity_follows_the_origin(versions: list[Path]) -> None:
    first, two = (Champions(folder).identity for folder in versions)
    assert first != two == json.loads(json.dumps(Champions(versions[1]).describe()))["champions"]
