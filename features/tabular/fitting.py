"""Tabular features of a log in parts: vocabularies learned from merged counts, matrices made part by part.

    features = fit_features(log, settings, rows)     # `rows(part)` are the training snapshots of a part
    log.rows(partial(feature_batches, features=state, rows=rows), schema)

What is learned is what one machine learns from the whole log (`features.tabular.learning`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.journeys.event_log import Joined, LogFacts, Part, Parts, total
from features.journeys.journeys import Snapshots
from features.journeys.quantiles import Ranks
from features.tabular.features import TabularFeatures, rows_to_check
from features.tabular.learning import (
    Tally,
    learned_from,
    lower_quartile,
    satisfaction,
    tally,
    window_counts,
    windows_from,
)
from features.tabular.settings import TabularSettings

ROWS_A_BATCH = 1 << 14
Rows = Callable[[Part], Snapshots]
Chosen = Callable[[int, int], Any]  # how many rows there are, how many are wanted → what tells a part which to take


def fit_features(
    log: Parts, facts: LogFacts, settings: TabularSettings, rows: Rows, pick: Callable[[npt.NDArray[np.int64]], Rows]
) -> TabularFeatures:
    """Learn from the training rows of all parts.

    Args:
        log: parts with the names of the whole log.
        facts: of the whole log.
        settings: as for `TabularFeatures`.
        rows: the training snapshots of a part; of a module, or a partial of one.
        pick: for the places of some training rows, in the order of cutoff and identifier, the snapshots of a part that
            are among them.

    Raises:
        DataError: there is no event to learn from.
    """
    features = TabularFeatures(settings)
    counted, windows = total(log, partial(_counted, rows=rows, settings=settings))

    def bad() -> float:
        scores = partial(_satisfaction, rows=rows)
        return lower_quartile(Ranks(lambda f: total(log, f), scores))

    def checked() -> npt.NDArray[np.float32]:
        some = pick(rows_to_check(counted.rows, settings.check_rows))
        return total(log, partial(_matrix, state=features.to_dict(), rows=some)).array

    learned = learned_from(counted, facts.names, bad, settings)
    return features.fit_learned(settings.windows_days or windows_from(*windows), learned, checked)


def _counted(part: Part, rows: Rows, settings: TabularSettings) -> tuple[Tally, tuple[Any, ...]]:
    snapshots = rows(part)
    return tally(snapshots, settings), window_counts(snapshots)


def _satisfaction(part: Part, rows: Rows) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    return satisfaction(rows(part))


def _matrix(part: Part, state: dict[str, Any], rows: Rows) -> Joined:
    return Joined(TabularFeatures.from_dict(state).transform(rows(part)))


def feature_schema(features: TabularFeatures, beside: pa.Schema | None = None) -> pa.Schema:
    """`customer_id, cutoff`, columns beside them, then the features."""
    fields = [pa.field("customer_id", pa.string()), pa.field("cutoff", pa.timestamp("us")), *(beside or ())]
    return pa.schema([*fields, *(pa.field(name, pa.float32()) for name in features.get_feature_names_out())])


def batches_of(
    snapshots: Snapshots, features: TabularFeatures, beside: dict[str, Any], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """Snapshots as record batches of `feature_schema`.

    Args:
        snapshots: (n,) rows.
        features: fitted.
        beside: name → (n,) values of the columns beside.
        schema: of the batches.
    """
    for first in range(0, len(snapshots), ROWS_A_BATCH):
        some = slice(first, first + ROWS_A_BATCH)
        rows = snapshots.take(np.arange(first, min(first + ROWS_A_BATCH, len(snapshots))))
        x = np.asfortranarray(features.transform(rows))
        ids = rows.journeys.customer_ids.take(pa.array(rows.customer, mask=rows.customer < 0))
        given = [pa.array(values[some], schema.field(name).type) for name, values in beside.items()]
        columns = [ids, pa.array(rows.cutoff).cast(pa.timestamp("us")), *given, *(pa.array(one) for one in x.T)]
        yield pa.record_batch(columns, schema=schema)


def features_at(part: Part, state: str, cutoffs: npt.NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
    """The features of all customers of a part at some cutoffs; of rows asked for, where there are some.

    Args:
        part: some customers.
        state: fitted features, `TabularFeatures.to_dict` as JSON.
        cutoffs: (k,) µs.
    """
    features = fitted(state)
    log = part.journeys
    if part.requests is not None:
        snapshots = log.at(np.asarray(part.requests["cutoff"]), log.index_of(part.requests["customer_id"].to_pylist()))
    else:
        who = np.arange(log.n_customers)
        snapshots = log.at(np.repeat(cutoffs, len(who)), np.tile(who, len(cutoffs)))
    yield from batches_of(snapshots, features, {}, feature_schema(features))


@cache
def fitted(state: str) -> TabularFeatures:
    """Fitted features from JSON; once a process."""
    import json

    return TabularFeatures.from_dict(json.loads(state))
