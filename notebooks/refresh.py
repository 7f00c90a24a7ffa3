"""Run the notebooks and keep of their outputs the pictures alone: `.venv/bin/python notebooks/refresh.py [NAME …]`."""

from __future__ import annotations

import base64
import io
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image
from traitlets.config import Config

HERE = Path(__file__).resolve().parent
TIMEOUT_S = 300  # a cell
SHADES = 64  # of a picture: lines and text need no more, and the repository keeps every version


def notebooks() -> list[Path]:
    """The notebooks, in their order."""
    return sorted(HERE.glob("[0-9]_*.ipynb"))


def executed(path: Path, folder: Path) -> tuple[Any, float]:
    """A notebook run from its first cell in a fresh kernel, and how many seconds that took.

    Args:
        path: of the notebook, which stays as it is.
        folder: what the notebook writes, it writes here.
    """
    copy = Path(shutil.copy(path, folder))
    notebook = nbformat.read(copy, as_version=4)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as sockets:  # files that only we may open, not ports that anyone may
        config = Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}})
        where = {"metadata": {"path": str(folder)}}
        NotebookClient(notebook, timeout=TIMEOUT_S, resources=where, config=config).execute()
    return notebook, time.perf_counter() - begun


def cleaned(notebook: Any) -> Any:
    """The same without counts, times, and outputs other than pictures."""
    for number, cell in enumerate(notebook.cells, 1):
        cell.id, cell.metadata = f"cell-{number}", {}
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = [_picture(output) for output in cell.outputs if "image/png" in output.get("data", {})]
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def _picture(output: Any) -> Any:
    image = {"image/png": _small(output["data"]["image/png"])}
    metadata = {name: value for name, value in output["metadata"].items() if name == "image/png"}
    return nbformat.v4.new_output("display_data", data=image, metadata=metadata)


def _small(png: str) -> str:
    """A picture with few colours; base64 in and out."""
    with Image.open(io.BytesIO(base64.b64decode(png))) as picture, io.BytesIO() as written:
        few = picture.convert("RGB").quantize(SHADES, dither=Image.Dither.NONE)
        few.save(written, "PNG", optimize=True)
        return base64.b64encode(written.getvalue()).decode("ascii")


def main(names: list[str]) -> None:
    """Refresh those named, or all."""
    for path in notebooks():
        if names and path.name not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            notebook, seconds = executed(path, Path(folder))
        nbformat.write(cleaned(notebook), path)
        print(f"{path.name}: {seconds:.0f} s, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
