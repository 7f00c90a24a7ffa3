"""Packaging and serving: what goes into a bento, the proof, the refusal, and (slow) a real one over HTTP."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from importlib.metadata import packages_distributions, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from features.errors import ConfigError
from features.journeys.packing import pack
from features.simulation.simulator import simulate
from models.catalogue import KINDS, make
from models.ensembles.blend import Blend
from models.scoring.golden_sample import read_sample
from models.scoring.scorer import BASE_PACKAGES, Scorer, package_names
from serving.bento import package as packaging
from serving.bento.package import BuiltBento, PackagingError, bento_folder, modules, package, pinned, request_bodies
from serving.bento.serve import command, free_port, running
from serving.bento.swap import swap
from serving.champions.champions import Champions, Origin

ROOT = Path(__file__).resolve().parents[3]


def _without_bentoml(patch: pytest.MonkeyPatch, home: Path) -> list[str]:
    """What BentoML would build is copied as it was staged; returns the list of deleted tags."""
    patch.setenv("BENTOML_HOME", str(home))
    deleted: list[str] = []

    def build(context: Path, name: str, labels: dict[str, str]) -> str:
        bento = bento_folder(f"{name}:v1")
        shutil.copytree(context, bento / "src")
        (bento / "apis").mkdir()
        (bento / "labels.json").write_text(json.dumps(labels))
        return f"{name}:v1"

    patch.setattr(packaging, "_build", build)
    patch.setattr(packaging, "_delete", deleted.append)
    return deleted


@pytest.fixture(scope="module")
def built(scoring_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> BuiltBento:
    """A bento of one champion, but for what BentoML adds; a copy lies beside it."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        _without_bentoml(patch, home)
        return package([scoring_folder], out=home / "copy")


def test_a_package_is_complete_and_gives_the_recorded_answers(built: BuiltBento, scoring_folder: Path) -> None:
    assert str(built) == "journeylab:v1"
    assert built.path.parts[-3:] == ("bentos", "journeylab", "v1")
    assert built.differences == {"demo_churn": 0.0}
    champion = built.path / "src" / "champions" / "demo_churn"
    assert not (champion / "sample").exists(), "recorded journeys stay out of the bento"
    assert json.loads((champion / "champion.json").read_text())["name"] == "demo_churn"
    spec = json.loads((built.path / "apis" / "openapi.yaml").read_text())
    assert {"/churn", "/demo_churn", "/model"} <= set(spec["paths"])
    assert spec["info"]["version"] == "v1"
    assert list((built.path / "src" / "kernels").glob("rows-*/*.nbi")), "kernels come compiled"
    assert (built.path.parents[2] / "copy" / "src" / "champions" / "demo_churn").is_dir()
    labels = json.loads((built.path / "labels.json").read_text())
    task = json.loads((scoring_folder / "task.json").read_text())
    assert labels["demo_churn.data"] == task["about"]["data_fingerprint"]


def test_a_bento_with_other_answers_is_deleted(
    scoring_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted = _without_bentoml(monkeypatch, tmp_path / "home")
    changed = tmp_path / "changed"
    shutil.copytree(scoring_folder, changed)
    scores = json.loads((changed / "sample" / "scores.json").read_text())
    scores[3]["probability"] += 2e-6
    (changed / "sample" / "scores.json").write_text(json.dumps(scores))
    with pytest.raises(PackagingError, match=r"for 'demo_churn' differ by up to 2e-06 .* no bento was left"):
        package([changed])
    assert deleted == ["journeylab:v1"]


def test_unusable_models_are_refused(scoring_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PackagingError, match="No model to package"):
        package([])
    with pytest.raises(PackagingError, match="Two models are named 'demo_churn'"):
        package([scoring_folder, scoring_folder])
    no_sample = tmp_path / "no_sample"
    shutil.copytree(scoring_folder, no_sample, ignore=shutil.ignore_patterns("sample"))
    with pytest.raises(packaging.JourneyLabError, match="has no recorded sample"):
        package([no_sample])


def test_a_registered_model_brings_its_labels(scoring_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = SimpleNamespace(
        resolve=lambda uri: SimpleNamespace(
            name="shop_churn", version="7", aliases=("champion",), run_id="r1", folder=scoring_folder,
            data_fingerprint="f00d",
        )
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "training.tracking.registry", registry)
    resolved = packaging._resolve("shop_churn@champion")
    assert resolved.origin == Origin("shop_churn", "7", "champion", "r1", "f00d")
    assert packaging._labels([resolved]) == {
        "champions": "shop_churn",
        "shop_churn.version": "7",
        "shop_churn.alias": "champion",
        "shop_churn.run": "r1",
        "shop_churn.data": "f00d",
    }


def test_only_the_modules_that_scoring_imports_are_packed() -> None:
    packed = {path.as_posix() for path in modules()}
    assert {
        "serving/service.py",
        "models/scoring/scorer.py",
        "features/tabular/features.py",
        "features/kernel_cache.py",
    } <= packed
    assert not {path for path in packed if path.startswith(("training", "experiments", "tests"))}
    assert (
        not {
            "features/simulation/simulator.py",
            "features/labels/churn.py",
            "serving/bento/package.py",
            "models/pyfunc.py",
        }
        & packed
    )


def test_every_package_is_pinned() -> None:
    pins = pinned()
    assert f"lightgbm=={version('lightgbm')}" in pins
    assert all("==" in pin for pin in pins)
    names = {pin.split("==")[0] for pin in pins}
    assert {"llvmlite", "starlette", "numba", "uvicorn"} <= names
    assert not names & {"mlflow", "optuna", "torch", "matplotlib", "bentoml", "scikit-learn"}


def _at_the_top(module: str) -> list[str]:
    """What importing one of our modules imports, itself included; what only a call imports is left out."""
    pending, reached = [module], dict[str, None]()
    while pending:
        name = pending.pop()
        path = packaging._file_of(name)
        if path is None or name in reached:
            continue
        reached[name] = None
        for node in ast.parse((ROOT / path).read_text()).body:
            if isinstance(node, ast.Import):
                pending += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                pending += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return list(reached)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "blend"])
def test_imports_of_a_kind_are_packaged_and_pinned(kind: str) -> None:
    pins = {pin.split("==")[0] for pin in pinned((*package_names(make(kind, {})), "bentoml"))} | {"bentoml"}
    ours = {*packaging.PACKAGES, *sys.stdlib_module_names}
    packed = {path.as_posix() for path in modules()}
    distributions = packages_distributions()
    imported = {
        name for entry in (*packaging.ENTRY_POINTS, KINDS[kind].load_class().__module__) for name in _at_the_top(entry)
    }
    for module in sorted(imported):
        path = packaging._file_of(module)
        assert path is not None
        assert path.as_posix() in packed
        for node in ast.parse((ROOT / path).read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for top in {name.partition(".")[0] for name in names} - ours:
                from_ = {name.replace("_", "-").lower() for name in distributions[top]}
                assert from_ & pins, f"{path} imports {top}, which no bento of {kind} has"


def test_a_bento_pins_the_needs_of_its_champions(tmp_path: Path, scoring_folder: Path) -> None:
    journeys = simulate(n_customers=40, days=120, seed=1)
    snapshots = pack(journeys.events).at(str(journeys.events["timestamp"].max()))
    labels = np.arange(len(snapshots)) % 2
    scorer = Scorer.load(scoring_folder)
    rfm = make("rfm", {}).fit(snapshots, labels)
    blend = Blend({"rfm": rfm, "gbdt": scorer.model}).with_weights([0.5, 0.5], 0.0)
    blended = Scorer(blend, scorer.task | {"name": "blended"}, scorer.schema, scorer.source)
    blended.save(tmp_path / "champions" / "blended")
    assert packaging._packages(tmp_path) == tuple(sorted((*BASE_PACKAGES, *packaging.SERVER)))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_public_addresses_are_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="can be reached by others and no tokens are configured"):
        command("journeylab:latest", host=host)


def test_an_occupied_port_is_refused() -> None:
    import socket

    with socket.socket() as occupied:
        occupied.bind(("127.0.0.1", 0))
        occupied.listen()
        with pytest.raises(ConfigError, match=r"Cannot listen on 127\.0\.0\.1:\d+ .* --port"):
            command("journeylab:latest", port=occupied.getsockname()[1])
    pending = command("journeylab:latest", host="localhost", port=free_port())
    assert pending[1:4] == ["-m", "bentoml", "serve"]


def test_a_bento_in_a_read_only_folder_starts_with_its_kernels(built: BuiltBento, tmp_path: Path) -> None:
    """Numba refuses a cache that it cannot write to: the service takes a copy."""
    source = built.path / "src"
    (tmp_path / "tmp").mkdir()
    code = """
import tempfile, features.kernel_cache as kernel_cache
real = tempfile.TemporaryFile
def refuse(*args, dir=None, **kwargs):
    if str(dir).startswith(str(kernel_cache.BUNDLED)):
        raise OSError("read-only file system")
    return real(*args, dir=dir, **kwargs)
tempfile.TemporaryFile = refuse
from serving.service import JourneyLab
JourneyLab()
from features.tabular.rows import fill_rows
print(fill_rows._cache.cache_path, sum(fill_rows.stats.cache_hits.values()), sum(fill_rows.stats.cache_misses.values()))
"""
    environment = os.environ | {"TMPDIR": str(tmp_path / "tmp")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=source, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    folder, hits, misses = done.stdout.split()
    assert folder.startswith(str(tmp_path / "tmp"))
    assert (int(hits), int(misses)) == (1, 0)


@pytest.mark.slow
def test_a_served_bento_gives_the_recorded_answers(
    scoring_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("JOURNEYLAB_HOME", str(tmp_path / "state"))
    built = package([scoring_folder])
    assert built.path.is_dir()
    assert (built.path / "env" / "docker" / "Dockerfile").is_file()
    about = (built.path / "bento.yaml").read_text()
    assert "demo_churn.data" in about
    events, scores = read_sample(scoring_folder)
    bodies = request_bodies(events)
    log = tmp_path / "log.txt"
    with running(built.tag, log=log) as url:
        for customer, recorded in zip(scores["customer_id"], scores["probability"], strict=True):
            status, answer = _post(f"{url}/churn", bodies[customer])
            assert (status, answer["probability"]) == (200, pytest.approx(recorded, abs=1e-6))
        assert _post(f"{url}/churn", {"events": []})[0] == 422
        assert _post(f"{url}/nothing", {})[0] == 404
        spec = json.loads(_get(f"{url}/docs.json"))
        assert "/churn" in spec["paths"]
        assert "bentoml" in _get(f"{url}/metrics")
        for snippet in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "serving.md").read_text(), re.DOTALL):
            exec(compile(snippet.replace("http://127.0.0.1:3000", url), "serving.md", "exec"), {})
        other = _other_version(built, tmp_path)
        assert swap(str(other), port=int(url.rpartition(":")[2])) == {"demo_churn": "2"}
        customer = str(scores["customer_id"].iloc[0])
        answer = _post(f"{url}/churn", bodies[customer])[1]
        assert answer["model"]["version"] == "2"
        assert answer["probability"] == pytest.approx(scores["probability"].iloc[0], abs=1e-6)
    assert not [name for name in bodies if name in log.read_text()], "no identifier in the log"


def _other_version(built: BuiltBento, tmp_path: Path) -> Path:
    """A bento's folder whose champion is the same model as version 2."""
    folder = tmp_path / "other"
    shutil.copytree(built.path, folder)
    Origin("demo_churn", "2", "champion").write(folder / "src" / "champions" / "demo_churn")
    return folder


@pytest.mark.slow
def test_a_real_bento_with_other_answers_is_deleted(
    scoring_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(packaging, "TOLERANCE", -1.0)
    with pytest.raises(PackagingError, match="no bento was left"):
        package([scoring_folder])
    assert not list((tmp_path / "home" / "bentos" / "journeylab").glob("*/bento.yaml"))


def test_champions_of_a_folder(scoring_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(scoring_folder, tmp_path / "demo_churn")
    assert Champions(tmp_path).origins["demo_churn"].version == "0"


def _post(url: str, body: dict[str, Any] | Sequence[Any]) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as response:
        return str(response.read().decode())
