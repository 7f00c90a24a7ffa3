"""docs/team.md says nothing that is not so: commands parse, settings load, names exist, files are there."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import typer.main

from experiment_files import write_experiment
from experiments.cli import app
from training.config.experiment import load_experiment

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "team.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [
    line.partition("  #")[0].rstrip(" &")
    for language, block in BLOCKS
    for line in block.splitlines()
    if language == "" and line.startswith("journeylab ")
] + re.findall(r"`(journeylab [a-z]+ [^`]+)`", PAGE)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_exist(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNEYLAB_STORAGE", "postgresql+psycopg://journeylab@127.0.0.1/search")
    _, name, *arguments = shlex.split(line)
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    command.make_context(name, list(arguments))


def test_main_commands_are_shown() -> None:
    assert {line.split()[1] for line in COMMANDS} >= {"train", "work", "promote", "score", "serve", "swap"}


def test_the_settings_are_settings(tmp_path: Path) -> None:
    parts = [block for language, block in BLOCKS if language == "toml"]
    experiment = load_experiment(write_experiment(tmp_path, "\n".join(parts)))
    assert experiment.models.settings["gru"]["devices"] == 2


def test_imported_names_exist() -> None:
    [block] = [block for _, block in BLOCKS if "import" in block]
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom):
            assert node.module is not None
            if node.module.startswith("mlflow.pyspark") and importlib.util.find_spec("pyspark") is None:
                continue
            module = importlib.import_module(node.module)
            assert all(hasattr(module, name.name) for name in node.names)


def test_named_files_exist() -> None:
    for name in re.findall(r"docs/deploy/[a-z.]+[a-z]", PAGE):
        assert (ROOT / name).is_file()
