"""Package champions as one bento that needs nothing else: code, models, pinned packages, labels, and a proof.

    built = package(["churn@champion", "conversion@champion"])
    built.tag, built.path, built.differences

The bento goes to BentoML's store (`BENTOML_HOME`, by default `~/bentoml`). It holds the modules that scoring imports
and no other, each champion's scoring folder without the recorded journeys, and the kernels compiled for this machine.
The proof is that the bento's own code gives the recorded answers to recorded journeys.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

import pandas as pd
from packaging.requirements import Requirement

from features.errors import JourneyLabError
from models.scoring.golden_sample import FOLDER as SAMPLE
from models.scoring.golden_sample import TOLERANCE, difference, read_sample
from models.scoring.scorer import BASE_PACKAGES, package_names, read_task
from models.scoring.scorer import pinned as pin
from serving.api.routes import service_of
from serving.champions.champions import Champions, Origin, route_name
from serving.champions.lookalike_search import FOLDER as LOOKALIKES
from serving.requests.schemas import as_text

ROOT = Path(__file__).resolve().parents[2]
ENTRY_POINTS = ("serving.service", "serving.bento.replay")
PACKAGES = ("features", "models", "serving")
SERVICE = "serving.service:JourneyLab"
LABELS = {"version": "version", "alias": "alias", "run": "run_id", "data": "data_fingerprint"}  # -> field of `Origin`
SERVER = ("bentoml", "httptools", "uvloop")  # uvicorn takes the last two where they are: half the time of its own
QUIET = {"BENTOML_DO_NOT_TRACK": "True", "PYTHONWARNINGS": "ignore"}
DROPPED = ("PYTHONPATH", "FORCE_COLOR", "CLICOLOR_FORCE")  # output is parsed, and notebooks ask for colours


class PackagingError(JourneyLabError):
    """A bento could not be built, or is not the same as what was recorded."""


@dataclass(frozen=True)
class BuiltBento:
    """A finished bento.

    Attributes:
        tag: name:version in BentoML's store. path: its folder.
        differences: champion → the largest difference between the recorded and the bento's answers.
    """

    tag: str
    path: Path
    differences: dict[str, float]

    def __str__(self) -> str:
        return self.tag


def package(
    models: Sequence[str | Path], *, name: str = "journeylab", out: Path | None = None, lookalikes: bool = False
) -> BuiltBento:
    """Build a bento and prove it.

    Args:
        models: `name@alias`, `models:/name@alias`, `models:/name/version`, or a scoring folder.
        name: of the bento.
        out: also leave a copy of the finished bento in this folder.
        lookalikes: include the customers' vectors, which one of the segmentations saved.

    Raises:
        PackagingError: no model, a build that failed, or answers that differ; then no bento is left.
        JourneyLabError: a model that cannot be found, or two that cannot live in one bento.
    """
    if not models:
        raise PackagingError("No model to package: name at least one, such as churn@champion.")
    packaged = [_resolve(model) for model in models]
    requests = [request for model in packaged for request in _recorded_requests(model)]
    with tempfile.TemporaryDirectory(prefix="journeylab-package-") as folder:
        context = Path(folder)
        _stage(context, packaged)
        if lookalikes:
            _add_lookalikes(context, packaged)
        tag = _build(context, name, _labels(packaged))
    path = bento_folder(tag)
    try:
        differences = _prove(path / "src", requests)
        _add_kernels(path / "src")
        _describe(path, tag)
        if out is not None:
            shutil.copytree(path, out)
    except BaseException:
        _delete(tag)
        raise
    return BuiltBento(tag, path, differences)


def bento_folder(tag: str) -> Path:
    """Where BentoML's store keeps a bento."""
    home = Path(os.environ.get("BENTOML_HOME") or Path.home() / "bentoml").expanduser()
    name, _, version = tag.partition(":")
    return home / "bentos" / name / version


def modules(entry_points: Sequence[str] = ENTRY_POINTS) -> list[Path]:
    """The files of our packages that modules import, at the top or inside a function, relative to the repository."""
    pending, files = list(entry_points), dict[str, Path]()
    while pending:
        module = pending.pop()
        path = _file_of(module)
        if path is not None and module not in files:
            files[module] = path
            pending += [module.rpartition(".")[0], *_imports(ROOT / path)]
    return sorted(files.values())


def pinned(names: Sequence[str] = (*BASE_PACKAGES, *SERVER)) -> list[str]:
    """`names` and all that they need, as `name==version` of what is installed: what was proved is what is installed."""
    pending, pins = list(names), dict[str, str]()
    while pending:
        name = re.sub(r"[-_.]+", "-", pending.pop()).lower()
        if name in pins:
            continue
        try:
            pins[name] = pin(name)
        except PackageNotFoundError:
            continue
        requirements = [Requirement(text) for text in requires(name) or []]
        pending += [need.name for need in requirements if need.marker is None or need.marker.evaluate({"extra": ""})]
    return sorted(text for name, text in pins.items() if name != "bentoml")  # BentoML adds itself


@dataclass(frozen=True)
class _PackagedModel:
    """A scoring folder and where it came from."""

    folder: Path
    origin: Origin

    @property
    def route(self) -> str:
        return route_name(self.origin.name)


def _resolve(model: str | Path) -> _PackagedModel:
    if (Path(model) / "task.json").is_file():
        folder = Path(model)
        task = read_task(folder)
        fingerprint = str(task["about"].get("data_fingerprint", ""))
        return _PackagedModel(folder, Origin(str(task["task"]["name"]), data_fingerprint=fingerprint))
    from training.tracking.registry import resolve  # MLflow takes seconds, and a scoring folder does without

    resolved = resolve(str(model))
    origin = Origin(
        name=resolved.name or str(read_task(resolved.folder)["task"]["name"]),
        version=resolved.version or "0",
        alias=str(model).partition("@")[2] or ",".join(resolved.aliases),
        run_id=resolved.run_id,
        data_fingerprint=resolved.data_fingerprint,
    )
    return _PackagedModel(resolved.folder, origin)


def _file_of(module: str) -> Path | None:
    """The file of one of our modules, relative to the repository."""
    parts = module.split(".")
    if parts[0] not in PACKAGES:
        return None
    for path in (Path(*parts).with_suffix(".py"), Path(*parts, "__init__.py")):
        if (ROOT / path).is_file():
            return path
    return None


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _stage(context: Path, models: Sequence[_PackagedModel]) -> None:
    """Copy everything that goes into the bento."""
    pages = [page.relative_to(ROOT) for page in (ROOT / "serving").rglob("*.html")]
    for path in (*modules(), *pages):
        (context / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, context / path)
    for model in models:
        target = context / "champions" / model.route
        if target.exists():
            raise PackagingError(f"Two models are named '{model.route}': package one of them, or rename the other.")
        shutil.copytree(model.folder, target, ignore=shutil.ignore_patterns(SAMPLE))
        model.origin.write(target)
    service_of(Champions(context / "champions")).champions.columns  # noqa: B018  # raises where they cannot be served


def _add_lookalikes(context: Path, models: Sequence[_PackagedModel]) -> None:
    """The vectors and their encoder, from the run that made them or from beside the scoring folder."""
    for model in models:
        if (folder := _lookalikes_of(model)) is not None:
            shutil.copytree(folder, context / "champions" / model.route / LOOKALIKES)
            return
    raise PackagingError("None of these models saved look-alikes: add [segments.lookalikes] and segment again.")


def _lookalikes_of(model: _PackagedModel) -> Path | None:
    if model.origin.run_id:
        from training.tracking.registry import fetched  # as in `_resolve`

        return fetched(model.origin.run_id, LOOKALIKES)
    folder = model.folder.parent / "artifacts" / LOOKALIKES
    return folder if folder.is_dir() else None


def _labels(models: Sequence[_PackagedModel]) -> dict[str, str]:
    labels: dict[str, str] = {"champions": ",".join(model.route for model in models)}
    for model in models:
        values = {label: getattr(model.origin, field) for label, field in LABELS.items()}
        labels |= {f"{model.route}.{label}": value for label, value in values.items() if value}
    return labels


def _build(context: Path, name: str, labels: dict[str, str]) -> str:
    """`bentoml build` in a process of its own, which imports what was staged and nothing else; the tag."""
    files = [path.relative_to(context).as_posix() for path in sorted(context.rglob("*")) if path.is_file()]
    bentofile: dict[str, Any] = {
        "service": SERVICE,
        "name": name,
        "labels": labels,
        "description": _readme(labels),
        "include": files,
        "python": {"packages": pinned(_packages(context)), "lock_packages": False},
        "docker": {
            "distro": "debian",
            "python_version": f"{sys.version_info.major}.{sys.version_info.minor}",
            "system_packages": ["libgomp1"],  # for LightGBM
        },
    }
    (context / "bentofile.yaml").write_text(json.dumps(bentofile), encoding="utf-8")  # JSON is YAML
    done = _run([sys.executable, "-m", "bentoml", "build", str(context), "--output", "tag"], context)
    tag = re.search(rf"{re.escape(name)}:[a-z0-9_.-]+", done.stdout)
    if done.returncode or not tag:
        raise PackagingError(f"bentoml build failed: {_last_line(done.stderr or done.stdout)}")
    return tag.group()


def _packages(context: Path) -> tuple[str, ...]:
    """What the champions of a staged bento need together, BentoML included."""
    scorers = Champions(context / "champions").scorers.values()
    return tuple(sorted({name for scorer in scorers for name in package_names(scorer.model)} | set(SERVER)))


def _recorded_requests(model: _PackagedModel) -> list[dict[str, Any]]:
    """Recorded journeys as requests, `route` and `body`, with the `answers` that they must get."""
    events, scores = read_sample(model.folder)
    bodies = request_bodies(events)
    rows = scores.drop(columns=["customer_id", "cutoff"]).to_dict("records")
    return [
        {"route": model.route, "body": bodies[customer], "answers": answers}
        for customer, answers in zip(scores["customer_id"], rows, strict=True)
    ]


def _prove(source: Path, requests: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Champion → largest difference, measured with the code and the files of the bento."""
    done = _run([sys.executable, "-m", "serving.bento.replay"], source, json.dumps(requests))
    if done.returncode:
        raise PackagingError(f"The packaged service cannot score recorded journeys: {_last_line(done.stderr)}")
    answer = json.loads(done.stdout)
    if Path(answer["code"]) != source.resolve():
        raise PackagingError(f"The proof ran the code in {answer['code']}, not the bento's: is there a sitecustomize?")
    differences = [
        difference(list(request["answers"].values()), [(values or {}).get(name) for name in request["answers"]])
        for request, values in zip(requests, answer["answers"], strict=True)
    ]
    largest = pd.Series(differences, dtype="float64").groupby([request["route"] for request in requests]).max()
    if (worst := float(largest.max())) > TOLERANCE:
        raise PackagingError(
            f"The bento's answers for '{largest.idxmax()}' differ by up to {worst:.3g} from those recorded with "
            f"the model (allowed: {TOLERANCE:g}), so no bento was left. Was the code changed since? Train again."
        )
    return {str(name): float(value) for name, value in largest.items()}


def _add_kernels(source: Path) -> None:
    """Copy the kernels that the proof compiled or used: the service starts with them."""
    from features.kernel_cache import cache_folder, entry

    for module in source.rglob("*.py"):
        compiled = cache_folder() / entry(module)
        if compiled.is_dir():  # only modules with kernels have one
            shutil.copytree(compiled, source / "kernels" / compiled.name)


def request_bodies(events: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Recorded journeys (canonical rows with `cutoff`) as requests, by customer."""
    bodies: dict[str, dict[str, Any]] = {}
    for row in events.to_dict("records"):
        customer, cutoff = str(row.pop("customer_id")), row.pop("cutoff")
        body = bodies.setdefault(customer, {"customer_id": customer, "as_of": _iso(cutoff), "events": []})
        event = {str(name): value for name, value in row.items() if not pd.isna(value)}
        body["events"].append(event | {"timestamp": _iso(row["timestamp"])})
    return bodies


def _iso(moment: pd.Timestamp) -> str:
    return as_text(int(moment.as_unit("us").value // 1000))


def _describe(bento: Path, tag: str) -> None:
    """Replace BentoML's OpenAPI document, which does not know the routes."""
    document = service_of(Champions(bento / "src" / "champions")).document
    document["info"] = document["info"] | {"version": tag.partition(":")[2]}
    (bento / "apis" / "openapi.yaml").write_text(json.dumps(document, indent=1), encoding="utf-8")  # JSON is YAML


def _readme(labels: dict[str, str]) -> str:
    rows = "\n".join(f"| {name} | {value} |" for name, value in labels.items())
    return (
        "# Journey Lab: champions in service\n\nRaw customer events in, calibrated probabilities out, a route a task. "
        f"Its documentation is at `/`.\n\n| label | value |\n|---|---|\n{rows}\n"
    )


def _delete(tag: str) -> None:
    _run([sys.executable, "-m", "bentoml", "delete", "--yes", tag], Path(tempfile.gettempdir()))


def _run(command: list[str], folder: Path, text: str = "") -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in DROPPED}
    return subprocess.run(
        command, cwd=folder, input=text, env=environment | QUIET, capture_output=True, text=True, check=False
    )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else "no output"
