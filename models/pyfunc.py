"""The MLflow side of a scoring folder: `loader_module="models.pyfunc"`, a signature, an input example; no pickle.

    model = mlflow.pyfunc.load_model("models:/online_retail_churn@champion")
    model.predict(events)                                       # one row a customer, cutoff just after the last event
    model.predict(events, params={"as_of": "2011-09-10"})       # one cutoff for all
    model.predict(events.merge(snapshots, on="customer_id"))    # a column `cutoff`: one row for each customer, cutoff

The input is canonical event rows; the output `customer_id, cutoff, probability, reason`, or the model's other answers.
With a column `cutoff`, the rows of one customer and cutoff are one journey; events at or after the cutoff are ignored.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from features.errors import DataError
from features.events.checks import as_table
from features.events.columns import text_column
from features.events.schema import REQUIRED, EventSchema
from models.contract import PROBABILITY
from models.scoring.scorer import ScoredBatch, Scorer

logger = logging.getLogger(__name__)


class EventModel:
    """The object that MLflow wraps: `predict(frame of events, params)`."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Probabilities, or what else the model answers, for canonical event rows.

        Args:
            model_input: the events; an optional column `cutoff` says what to predict at.
            params: `as_of`: one cutoff for all customers, ISO 8601.

        Returns:
            `customer_id, cutoff` (UTC, naive), `probability`, `reason` (why there is no answer, else missing), in
            order of first appearance.

        Raises:
            DataError: no event log at all, or both a column `cutoff` and `as_of`.
        """
        as_of = (params or {}).get("as_of") or None
        if "cutoff" in model_input.columns and not model_input["cutoff"].isna().all():
            if as_of is not None:
                raise DataError("Both a column 'cutoff' and as_of were given: which is meant? Leave one of them out.")
            return self._at_row_cutoffs(model_input)
        scored = self.scorer.score_events(model_input.drop(columns="cutoff", errors="ignore"), as_of=as_of)
        return _answer(scored, scored.frame)

    def _at_row_cutoffs(self, events: pd.DataFrame) -> pd.DataFrame:
        """Each (customer, cutoff) is a journey of its own, under an invented name while it is scored."""
        if "customer_id" not in events.columns:
            raise DataError("No column 'customer_id' in the events: rename the column that says whose each event is.")
        ids = text_column("customer_id", as_table(events[["customer_id"]])["customer_id"].combine_chunks()).values
        pairs = pd.DataFrame({"customer_id": ids.to_pylist(), "cutoff": events["cutoff"].to_numpy(dtype=object)})
        group = pairs.groupby(["customer_id", "cutoff"], sort=False, dropna=False).ngroup().to_numpy()
        firsts = np.sort(np.unique(group, return_index=True)[1])
        names = pd.Series(group.astype(str)).where(pairs["customer_id"].notna().to_numpy(), None)
        renamed = events.drop(columns="cutoff").assign(customer_id=names.to_numpy(dtype=object))
        cutoffs = pd.DataFrame(
            {"customer_id": names.to_numpy(dtype=object)[firsts], "cutoff": pairs["cutoff"].iloc[firsts]}
        )
        scored = self.scorer.score_events(renamed, cutoffs)
        return _answer(
            scored, scored.frame.assign(customer_id=pairs["customer_id"].iloc[firsts].to_numpy(dtype=object))
        )


def _load_pyfunc(path: str) -> EventModel:
    """MLflow's entry point: `path` is the scoring folder inside the logged model."""
    return EventModel(Scorer.load(Path(path)))


def signature(schema: EventSchema | None = None, answered: Mapping[str, str] = PROBABILITY) -> Any:
    """The `mlflow.models.ModelSignature`: names and which are required.

    The types are left open: MLflow would refuse whole-number money, numeric identifiers, times with a zone and
    pandas categories, all of which the checks of `features.events.checks` read.

    Args:
        schema: the columns of the events beyond the canonical ones.
        answered: name → type of the model's answers, see `models.contract.answer_columns`.
    """
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, ParamSchema, ParamSpec, Schema

    schema = schema or EventSchema()
    names = dict.fromkeys((*REQUIRED, *schema.category_columns, *schema.number_columns, "cutoff"))
    anything: Any = AnyType
    inputs: list[Any] = [ColSpec(anything(), name, required=name in REQUIRED) for name in names]
    outputs: list[Any] = [
        ColSpec("string", "customer_id"),
        ColSpec("datetime", "cutoff"),
        *(ColSpec(kind, name, required=name in PROBABILITY) for name, kind in answered.items()),
        ColSpec("string", "reason", required=False),
    ]
    params = ParamSchema([ParamSpec("as_of", "string", "")])
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs), params=params)


def input_example(events: pd.DataFrame, customers: int = 3, rows: int = 12) -> pd.DataFrame:
    """A few event rows as they may be sent, under invented names, times as ISO 8601 text.

    Args:
        events: canonical rows, such as the sample of `models.scoring.golden_sample`.
        customers: how many, the first ones.
        rows: at most so many events a customer.
    """
    events = events.drop(columns="cutoff", errors="ignore")
    ids = events["customer_id"].astype(str)
    chosen = list(dict.fromkeys(ids))[:customers]
    rows_sent = events[ids.isin(chosen)].groupby(ids, sort=False).head(rows).reset_index(drop=True)
    renamed = rows_sent["customer_id"].astype(str).map({name: f"customer-{n}" for n, name in enumerate(chosen, 1)})
    times = pd.to_datetime(rows_sent["timestamp"], utc=True).map(lambda moment: moment.isoformat())
    return rows_sent.assign(customer_id=renamed, timestamp=times).dropna(axis=1, how="all")


def code_paths() -> tuple[Path, ...]:
    """The folders of code that travel with a logged model."""
    folder = Path(__file__).resolve().parent
    return folder.parent / "features", folder


def _answer(scored: ScoredBatch, frame: pd.DataFrame) -> pd.DataFrame:
    if scored.quarantine_counts:
        logger.warning("events rejected: %s", scored.quarantine_counts)
    if scored.unknown:
        logger.warning("events of touchpoints never seen in training: %d", sum(scored.unknown.values()))
    return frame
