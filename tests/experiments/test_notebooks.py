"""The notebooks hold code, prose and small pictures, nothing left over; and (slow) they run, and quietly."""

from __future__ import annotations

import base64
import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
MOST_PICTURE_BYTES = 60_000
OF_A_MACHINE = re.compile(r"""(?<![\w.:/<])(/(home|root|tmp|work|opt|usr|var|Users|mnt)/|[A-Z]:\\)""")

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path, kind: str) -> list[Any]:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_four_notebooks() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == ["1_", "2_", "3_", "4_"]


@each
def test_outputs_are_small_pictures(path: Path) -> None:
    pictures = 0
    for cell in cells(path, "code"):
        assert cell["execution_count"] is None
        assert cell["metadata"] == {}
        for output in cell["outputs"]:
            assert output["output_type"] == "display_data", "refresh with notebooks/refresh.py"
            assert list(output["data"]) == ["image/png"]
            png = base64.b64decode("".join(output["data"]["image/png"]))
            width, height = struct.unpack(">II", png[16:24])
            assert png.startswith(b"\x89PNG")
            assert min(width, height) > 300
            assert len(png) < MOST_PICTURE_BYTES
            pictures += 1
    assert pictures


@each
def test_no_traces_of_a_machine(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    text = "".join(line for cell in notebook["cells"] for line in cell["source"])
    assert not OF_A_MACHINE.search(text)
    assert "Traceback" not in text


@each
def test_links_lead_somewhere(path: Path) -> None:
    text = "".join(line for cell in cells(path, "markdown") for line in cell["source"])
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (path.parent / target).exists(), target


@pytest.mark.slow
@each
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    from notebooks.refresh import executed

    notebook, _ = executed(path, tmp_path)  # raises where a cell does; how long it takes, refresh.py says
    warnings_ = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if output.get("name") == "stderr"
    ]
    assert not warnings_, warnings_[0]["text"]
