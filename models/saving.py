"""Saved models: a folder of data with `model.json` that names the kind; loading one never runs code from it."""

from __future__ import annotations

import json
from pathlib import Path

from features.errors import DataError
from models.catalogue import KINDS
from models.contract import SavableModel

FORMAT = 1
SEGMENTS = "segments"  # `models.segments.collection.SegmentCollection`, which is no model that a search makes


def save_model(model: SavableModel, folder: Path) -> Path:
    """Write `model` into `folder` (made where missing) and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder)
    (folder / "model.json").write_text(json.dumps({"format": FORMAT, "kind": model.kind}), encoding="utf-8")
    return folder


def load_model(folder: Path) -> SavableModel:
    """Read a model that `save_model` wrote.

    Raises:
        DataError: when the folder holds no model, one of an unknown kind, or one of a newer format.
    """
    about = folder / "model.json"
    if not about.is_file():
        raise DataError(f"No model in {folder}: it has no model.json. Give the folder that a training run saved.")
    found = json.loads(about.read_text(encoding="utf-8"))
    if found.get("format") != FORMAT or found.get("kind") not in (*KINDS, SEGMENTS):
        raise DataError(
            f"The model in {folder} is of kind {found.get('kind')!r}, format {found.get('format')!r}; this version "
            f"reads format {FORMAT} of {', '.join((*KINDS, SEGMENTS))}. Install the version that saved it."
        )
    return _class(found["kind"]).load(folder)


def _class(kind: str) -> type[SavableModel]:
    if kind == SEGMENTS:
        from models.segments.collection import SegmentCollection

        return SegmentCollection
    return KINDS[kind].load()
