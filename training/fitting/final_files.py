"""The files and pictures of a final model's run, under stable names."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from models.contract import FeatureModel
from training.config.experiment import Experiment
from training.data.provenance import empty_folder, write_provenance
from training.data.task_data import TaskData
from training.evaluation.curves import calibration_table, lift_table, pr_table, roc_table
from training.fitting.finals import Final, Floats
from training.reports.model_card import CARD_FILE
from training.reports.pictures import MOST_MODELS, Predictions, draw_evaluation, draw_learning_curve
from training.search.worker import log_loss

CURVES = {"roc": roc_table, "pr": pr_table, "lift": lift_table, "calibration": calibration_table}
ROWS = {"test": "held-out rows", "validation": "validation rows"}
SETTINGS = "settings.json"
MOST_EACH = 2  # of the best models on validation, and of ablations and probes, in a picture


def write_files(
    final: Final,
    finals: Sequence[Final],
    tables: Mapping[str, pd.DataFrame],
    card: str,
    experiment: Experiment,
    data: TaskData,
    to: Path,
) -> Path:
    """Fill a folder with the artifacts of a final model's run.

    Args:
        final: the model.
        finals: all of the training, for the pictures.
        tables: name → a table for the reviewer; those without rows are left out.
        card: see `training.reports.model_card`.
        experiment: for the provenance.
        data: the rows that were scored.
        to: the folder; what is in it is lost.
    """
    files = empty_folder(to)
    write_provenance(files, experiment)
    for split, scores in (("validation", final.validation), ("test", final.test)):
        _write_predictions(files / "predictions", split, scores, data)
    (files / "curves").mkdir()
    y, customers, _ = data.scored("test")
    for name, curve in CURVES.items():
        curve(y, final.test, customers).to_csv(files / "curves" / f"{name}.csv", index=False)
    for name, table in tables.items():
        if len(table):
            table.to_csv(files / f"{name}.csv", index=False)
    (files / CARD_FILE).write_text(card, encoding="utf-8")
    (files / SETTINGS).write_text(json.dumps(settings_of(final), indent=1), encoding="utf-8")
    _draw(final, finals, data, files)
    return files


def settings_of(final: Final) -> dict[str, Any]:
    """The content of `settings.json`, from which `training.review.reproduce` makes the model again."""
    return {"name": final.name, "kind": final.kind, "role": final.role, "of": final.of, "settings": final.settings}


def picture_companions(final: Final, finals: Sequence[Final], data: TaskData) -> list[Final]:
    """The models that a picture shows beside a model: the best models, its ablations and probes, the baselines."""
    if final.role == "baseline":
        return []
    others = [other for other in finals if other.name != final.name]
    y, _, _ = data.scored("validation")
    models = sorted((o for o in others if o.role == "model"), key=lambda other: log_loss(y, other.validation))
    parts = [other for other in others if final.name in other.of and other.role in ("ablation", "probe")]
    baselines = [other for other in others if other.role == "baseline"]
    return [*models[:MOST_EACH], *parts[:MOST_EACH], *baselines][: MOST_MODELS - 1]


def curve_metrics(final: Final) -> pd.DataFrame | None:
    """The learning curve as metrics: `metric` ("curve/member_1/check_loss"), `epoch`, `value`."""
    if (history := final.history) is None or history.empty:
        return None
    parts = history["part"].astype(str).map(lambda part: re.sub(r"[^\w.-]+", "_", part).strip("_") or "fit")
    return history.assign(metric="curve/" + parts + "/" + history["name"].astype(str))[["metric", "epoch", "value"]]


def _draw(final: Final, finals: Sequence[Final], data: TaskData, files: Path) -> None:
    importance = _write_features(final, files)
    others = picture_companions(final, finals, data)
    predictions = [_scored(final, "test", data, importance), *(_scored(other, "test", data) for other in others)]
    earlier = [_scored(each, "validation", data) for each in (final, *others)]
    draw_evaluation(predictions, files / "pictures", earlier=earlier)
    if (history := final.history) is not None and len(history):
        history.to_csv(files / "curves" / "learning.csv", index=False)
        draw_learning_curve(final.name, history, files / "pictures")


def _write_predictions(folder: Path, split: str, scores: Floats, data: TaskData) -> None:
    folder.mkdir(exist_ok=True)
    y, customers, cutoffs = data.scored(split)
    frame = pd.DataFrame({"customer_id": customers, "cutoff": cutoffs.view("datetime64[us]"), "label": y})
    frame.assign(probability=scores).to_csv(folder / f"{split}.csv", index=False)


def _write_features(final: Final, files: Path) -> dict[str, float] | None:
    """`features.csv`, the inputs and their meanings; the importance by name, where the model knows it."""
    if not isinstance(final.model, FeatureModel):
        return None
    table = final.model.feature_table().sort_values("importance", ascending=False, kind="stable")
    table.to_csv(files / "features.csv", index=False)
    return dict(zip(table["name"], table["importance"].astype(float), strict=True))


def _scored(final: Final, split: str, data: TaskData, importance: dict[str, float] | None = None) -> Predictions:
    y, customers, cutoffs = data.scored(split)
    return Predictions(final.name, y, getattr(final, split), customers, cutoffs, importance, ROWS[split])
