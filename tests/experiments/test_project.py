"""The house in order: the README says what is there, the names are ours, nothing unpickles."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pandas as pd
import pytest

from experiments.docs import PACKAGES, first_line, modules
from training.config.experiment import load_experiment

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_each_folder_lists_its_files() -> None:
    """The docstring of a folder's `__init__` has a line for each file and folder in it."""
    missing = []
    for folder in {path.parent for path in modules() if "benchmarks" not in path.parts}:
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
        files = [f"{path.stem}:" for path in folder.glob("*.py") if path.stem != "__init__"]
        folders = [f"{path.name}/:" for path in folder.iterdir() if (path / "__init__.py").exists()]
        missing += [f"{folder.name}: {name}" for name in (*files, *folders) if f"\n{name}" not in text]
    assert missing == []


def snippets(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_readme_is_short() -> None:
    assert len(README.encode()) <= 10_000


def test_the_readme_python_runs() -> None:
    rows = {
        "customer_id": ["a", "a", "b"] * 20,
        "timestamp": pd.date_range("2024-01-01", periods=60, freq="D"),
        "touchpoint": ["visit", "order", "visit"] * 20,
    }
    names: dict[str, object] = {"events": pd.DataFrame(rows)}
    exec(compile("\n".join(snippets("python")), "README.md", "exec"), names)
    assert len(names["x"]) == 2  # type: ignore[arg-type]


def test_the_readme_experiment_loads(tmp_path: Path) -> None:
    """The README's file, with the sections that docs/segments.md shows."""
    sections = snippets("toml", (ROOT / "docs" / "segments.md").read_text(encoding="utf-8"))
    (tmp_path / "my_churn.toml").write_text("\n".join([*snippets("toml"), *sections]), encoding="utf-8")
    experiment = load_experiment(tmp_path / "my_churn.toml")
    assert experiment.name == "my_churn"
    assert experiment.segmentation.rules[0].name == "Complained, inactive for two weeks"


@pytest.mark.parametrize("file", sorted(path.name for path in (ROOT / "experiments" / "configs").glob("*.toml")))
def test_the_shipped_experiments_load(file: str) -> None:
    assert load_experiment(ROOT / "experiments" / "configs" / file).name


def test_class_names_are_unique() -> None:
    """In the five packages without benchmarks, so that a name in a message or a traceback means one class."""
    names = [
        node.name
        for path in modules()
        if "benchmarks" not in path.parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    ]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []


def test_files_and_folders_are_small() -> None:
    paths = [path for path in modules() if "benchmarks" not in path.parts]
    assert [path.name for path in paths if len(path.read_text(encoding="utf-8").splitlines()) > 450] == []
    folders = [path.parent for path in paths]
    assert sorted({str(folder) for folder in folders if folders.count(folder) > 20}) == []


def test_no_other_distribution_owns_our_names() -> None:
    owners = packages_distributions()
    assert {package: set(owners[package]) for package in PACKAGES} == {package: {"journeylab"} for package in PACKAGES}


def test_no_unpickling() -> None:
    bad = re.compile(r"import pickle|import joblib|import cloudpickle|import dill|allow_pickle=True|torch\.load")
    assert [path for path in modules() if bad.search(path.read_text(encoding="utf-8"))] == []


def test_modules_have_a_docstring() -> None:
    assert [path for path in modules() if not first_line(path).strip()] == []


@pytest.mark.slow
def test_the_wheel_holds_the_packages_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert {name.split("/")[0] for name in names} == set(PACKAGES)
    assert {Path(name).suffix for name in names} == {".py", ".toml", ".css", ".js", ".html", ".jinja"}
    assert "features/tabular/features.py" in names
    assert "experiments/configs/demo.toml" in names
