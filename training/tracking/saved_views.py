"""Saved views of MLflow's run list, one a question, kept as tags of the experiment.

    for key, value in views().items():
        client.set_experiment_tag(experiment_id, key, value)

MLflow lists them under "Views" above the runs. A view is a filter, an order and columns; the tag holds them as
JSON, as MLflow 3.17's own "Save view" writes it. Another version that does not know the tags ignores them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SHARED_VIEW = "mlflow.sharedViewState."
KIND = {"mlflow.experimentKind": "custom_model_development"}  # else MLflow opens its pages for language models
PICTURES = "pictures"  # what the keys of logged images begin with
GRID = ("calibration", "lift", "score_over_time")  # pictures that the chart view lays side by side


@dataclass(frozen=True)
class View:
    """A saved view.

    Attributes:
        id: of the view, part of its address; stable.
        name: as "Views" lists it: the question that it answers.
        filter: which runs.
        order: the metric to order by; by default the newest run first.
        rising: the least first.
        metrics: columns.
        tags: columns.
    """

    id: str
    name: str
    filter: str
    order: str = ""
    rising: bool = True
    metrics: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


def _with_interval(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}{end}" for name in names for end in ("", "_low", "_high"))


CANDIDATES = "tags.candidate = 'true'"
VIEWS = (
    View(
        "best", "Which run is best, and how surely?", CANDIDATES, "validation_log_loss",
        metrics=("validation_log_loss", *_with_interval("test_log_loss", "test_auroc", "test_brier")),
        tags=("kind", "best_on_validation", "beats_baselines"),
    ),
    View(
        "baselines", "Does it beat the baselines?", CANDIDATES, "test_auroc", rising=False,
        metrics=(*_with_interval("test_auroc"), "test_lift_at_10"), tags=("role", "beats_baselines"),
    ),
    View(
        "customers", "On which customers does it fail? (tables)", CANDIDATES, "validation_log_loss",
        metrics=_with_interval("test_auroc"), tags=("kind",),
    ),
    View(
        "calibration", "Is it calibrated?", CANDIDATES, "validation_log_loss",
        metrics=(
            *_with_interval("test_calibration_error"), "test_calibration_error_noise", "test_mean_prediction",
            "test_base_rate",
        ),
        tags=("kind",),
    ),
    View(
        "sequence", "Is the sequence worth its cost?", "tags.candidate != '' and tags.role != 'baseline'",
        "validation_log_loss",
        metrics=(
            "validation_log_loss", *_with_interval("test_auroc"), "test_log_loss", "fit_seconds", "rows_per_second",
        ),
        tags=("role", "kind"),
    ),
    View(
        "made-of", "What data, window, code made it?", CANDIDATES,
        tags=("data_fingerprint", "labels_fingerprint", "trained_until", "horizon_days", "commit", "train_id"),
    ),
    View(
        "search", "What happened in the search?",
        "tags.candidate IS NULL and tags.kind != '' and tags.role != 'segmentation'",
        metrics=("validation_log_loss", "fold_log_loss"), tags=("role", "kind", "trial", "state"),
    ),
    View(
        "segments", "Segments", "tags.role = 'segmentation'",
        metrics=("segments", "stability", "rule_fidelity", "smallest_share", "largest_share"), tags=("role",),
    ),
    View("maps", "Journey maps", "tags.role = 'map'", metrics=("customers", "events", "touchpoints"), tags=("role",)),
)  # fmt: skip


def views(chosen: Sequence[View] = VIEWS) -> dict[str, str]:
    """Tag → value, for an experiment."""
    return {f"{SHARED_VIEW}{view.id}": _value(view, place) for place, view in enumerate(chosen)}


def _value(view: View, place: int) -> str:
    """What MLflow saves; it lists views by the moment of saving."""
    return _compact({"name": view.name, "createdAt": place, "updatedAt": place, "state": _compact(_state(view))})


def _state(view: View) -> dict[str, Any]:
    columns = [*(_column("tags", name) for name in view.tags), *(_column("metrics", name) for name in view.metrics)]
    return {
        "searchFilter": view.filter,
        "orderByKey": _column("metrics", view.order) if view.order else "attributes.start_time",
        "orderByAsc": bool(view.order) and view.rising,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
    }


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"
