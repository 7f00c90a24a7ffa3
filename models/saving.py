"""Saved models: a folder of data with `model.json` that names the kind; loading one never runs code from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from features.errors import DataError
from models.catalogue import KINDS
from models.contract import CompositeModel, SavableModel

FORMAT = 1
SEGMENTS = "segments"  # `models.segments.collection.SegmentCollection`, which no search makes


def save_model(model: SavableModel, folder: Path) -> Path:
    """Write `model` into `folder` (made where missing), its members into folders inside, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder)
    if isinstance(model, CompositeModel):
        for name, member in model.member_folders().items():
            save_model(member, folder / name)
    (folder / "model.json").write_text(json.dumps({"format": FORMAT, "kind": model.kind}), encoding="utf-8")
    return folder


def load_model(folder: Path) -> SavableModel:
    """Read a model that `save_model` wrote.

    Raises:
        DataError: when the folder holds no model, one of an unknown kind, or one of a newer format.
    """
    path = folder / "model.json"
    if not path.is_file():
        raise DataError(f"No model in {folder}: it has no model.json. Give the folder that a training run saved.")
    header = json.loads(path.read_text(encoding="utf-8"))
    if header.get("format") != FORMAT or header.get("kind") not in (*KINDS, SEGMENTS):
        raise DataError(
            f"The model in {folder} is of kind {header.get('kind')!r}, format {header.get('format')!r}; this version "
            f"reads format {FORMAT} of {', '.join((*KINDS, SEGMENTS))}. Install the version that saved it."
        )
    model_class = _model_class(header["kind"])
    model: SavableModel = (
        model_class.load_with(folder, load_model) if hasattr(model_class, "load_with") else model_class.load(folder)
    )
    return model


def _model_class(kind: str) -> Any:
    if kind == SEGMENTS:
        # Scoring with any other kind of model does without the segments and what they import.
        from models.segments.collection import SegmentCollection

        return SegmentCollection
    return KINDS[kind].load_class()
