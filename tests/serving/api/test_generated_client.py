"""The client that the docs generate from the service's OpenAPI document works as they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from serving.bento.package import package
from serving.bento.serve import running

DOCS = Path(__file__).resolve().parents[3] / "docs" / "serving.md"


@pytest.mark.slow
def test_the_generated_client_works(scoring_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = DOCS.read_text(encoding="utf-8")
    install, generate = re.search(r"```\n(python -m venv generator.*)\n(generator/bin/open.*)\n```", text).groups()  # type: ignore[union-attr]
    snippet = re.search(r"```py\n(.*?)```", text, re.DOTALL).group(1)  # type: ignore[union-attr]
    install = install.replace("python", sys.executable, 1)
    if subprocess.run(install, shell=True, cwd=tmp_path, capture_output=True).returncode:
        pytest.skip("no package index to take the generator from")
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentos"))
    monkeypatch.setenv("JOURNEYLAB_HOME", str(tmp_path / "own"))
    with running(package([scoring_folder]).tag) as url:
        output = _run(generate.replace("http://127.0.0.1:3000", url), tmp_path)
        assert "Unable to parse" not in output
        printed = _run(
            [tmp_path / "generator/bin/python", "-c", snippet.replace("http://127.0.0.1:3000", url)], tmp_path
        )
    assert 0 < float(printed) < 1


def _run(command: str | list[str | Path], folder: Path) -> str:
    done = subprocess.run(command, shell=isinstance(command, str), cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
