"""Reasons by leaving out: what is told is the difference to a journey made by hand without the touchpoint."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from features.events.schema import EventSchema
from features.journeys.journeys import Snapshots
from features.journeys.packing import pack
from features.sequences.sequences import SequenceFeatures, SequenceSettings
from models.contract import Vector
from models.sequence.occlusion import MOST_TOUCHPOINTS, ROWS_AT_ONCE, occlusion_reasons, remove_touchpoint

SCHEMA = EventSchema(properties=("agent",))
CUTOFF = pd.Timestamp("2024-03-01")
N_CUSTOMERS = 70  # more than go through at once


def random_events(n_events: int = 700, seed: int = 0) -> pd.DataFrame:
    r = np.random.default_rng(seed)
    return pd.DataFrame({
        "customer_id": [f"c{k}" for k in r.integers(0, N_CUSTOMERS, n_events)],
        "timestamp": pd.Timestamp("2024-01-01") + pd.to_timedelta(r.integers(0, 80 * 24, n_events), unit="h"),
        "touchpoint": r.choice(["view", "buy", "call", "chat"], n_events), "item": r.choice(["a", "b", "c"], n_events),
        "agent": r.choice(["x", "y"], n_events), "value": np.round(r.normal(5, 10, n_events), 2),
    })  # fmt: skip


EVENTS = random_events()


def snapshots_of(events: pd.DataFrame) -> Snapshots:
    """The customers, and one that nobody knows, at the cutoff."""
    rows = pd.DataFrame({"customer_id": [f"c{k}" for k in range(N_CUSTOMERS + 1)], "cutoff": CUTOFF})
    return pack(events, SCHEMA).at_ids(rows)


ROWS = snapshots_of(EVENTS)
SEQUENCES = SequenceFeatures(SequenceSettings(min_count=1)).fit(ROWS)


def margins(snapshots: Snapshots) -> Vector:
    """A model that looks at all that a batch holds, the order included; it gives 0 to a journey without steps."""
    batch = SEQUENCES.batch(snapshots)
    weights = np.random.default_rng(1).normal(size=batch.numbers.shape[1])
    place = np.searchsorted(batch.offsets, np.arange(batch.n_steps), side="right")
    told = np.sin(batch.numbers @ weights + batch.codes.T @ [0.3, 0.7, 1.1]) * place**0.5 + np.log1p(batch.gap_days)
    out = np.zeros(len(snapshots))
    out[batch.rows] = np.bincount(batch.owner, told, minlength=len(snapshots))
    return out


def test_contributions_are_differences_to_journeys_made_by_hand() -> None:
    found, full = occlusion_reasons(margins, ROWS, top=9), margins(ROWS)
    assert len(ROWS) > ROWS_AT_ONCE
    assert len(found) == len(ROWS)
    by_hand = {
        name: margins(snapshots_of(EVENTS[EVENTS["touchpoint"] != name])) for name in ("view", "buy", "call", "chat")
    }
    seen = EVENTS[EVENTS["timestamp"] < CUTOFF]
    for row, (customer, reasons) in enumerate(zip(ROWS.customer_ids, found, strict=True)):
        own = seen.loc[seen["customer_id"] == customer, "touchpoint"].value_counts()
        told = {reason.subject: reason for reason in reasons}
        assert set(told) == (set(own.index) if len(own) > 1 else set())
        for name, reason in told.items():
            assert reason.contribution == pytest.approx(full[row] - by_hand[name][row], abs=1e-9)
            assert reason.value == own[name]
            assert reason.feature == f"touchpoint.{name}"
        sizes = [abs(reason.contribution) for reason in reasons]
        assert all(a >= b for a, b in pairwise(sizes))


def test_only_the_strongest_are_told() -> None:
    every, best = (occlusion_reasons(margins, ROWS, top) for top in (9, 2))
    assert best == [reasons[:2] for reasons in every]


def test_what_moves_nothing_is_no_reason() -> None:
    assert not any(occlusion_reasons(lambda snapshots: np.zeros(len(snapshots)), ROWS, 5))
    calls = ROWS.journeys.categories["touchpoint"].names.index("call")

    def number_of_calls(snapshots: Snapshots) -> Vector:
        codes = snapshots.journeys.categories["touchpoint"].codes
        pairs = zip(snapshots.start, snapshots.stop, strict=True)
        return np.array([(codes[start:stop] == calls).sum() for start, stop in pairs], float)

    for reasons in occlusion_reasons(number_of_calls, ROWS, 5):
        assert [reason.subject for reason in reasons] in ([], ["call"])
        assert all(reason.contribution == reason.value for reason in reasons)


def test_a_reason_is_told_in_words() -> None:
    events = pd.DataFrame({
        "customer_id": "c0", "touchpoint": ["view", "buy", "view"],
        "timestamp": CUTOFF - pd.to_timedelta([9.0, 5.5, 2.0], unit="D"),
    })  # fmt: skip
    rows = snapshots_of(events).take(np.arange(1))
    reasons = occlusion_reasons(lambda s: 1.0 * (s.stop - s.start), rows, 5)[0]
    texts = [reason.text for reason in reasons]
    assert texts[0] == "view: 2 times, last 2.0 days before the cutoff (raises the probability)"
    assert texts[1] == "buy: once, last 5.5 days before the cutoff (raises the probability)"
    lowered = occlusion_reasons(lambda s: -1.0 * (s.stop - s.start), rows, 1)[0][0]
    assert lowered.text.endswith("(lowers the probability)")


def test_the_future_is_not_among_the_reasons() -> None:
    late = EVENTS.assign(timestamp=CUTOFF + pd.Timedelta("1h"), touchpoint="only later")
    with_future = snapshots_of(pd.concat([late, EVENTS]))
    before, after = (occlusion_reasons(margins, rows, 9) for rows in (ROWS, with_future))
    assert before == after


def test_leaving_nothing_out_changes_nothing() -> None:
    rows = np.arange(len(ROWS))
    whole = remove_touchpoint(ROWS, rows, np.full(len(ROWS), -2))
    np.testing.assert_array_equal(margins(whole), margins(ROWS))
    assert (whole.cutoff == ROWS.cutoff).all()


def test_a_sub_journey_is_explained_by_what_it_sees() -> None:
    known = np.flatnonzero(ROWS.stop - ROWS.start >= 6)[:5]
    some = ROWS.take(known)
    cut = Snapshots(some.journeys, some.customer, some.start + 2, some.stop - 1, some.cutoff)
    for row, reasons in enumerate(occlusion_reasons(margins, cut, 9)):
        names = some.journeys.categories["touchpoint"].names
        seen = some.journeys.categories["touchpoint"].codes[cut.start[row] : cut.stop[row]]
        assert sum(reason.value for reason in reasons) == (len(seen) if len(set(seen)) > 1 else 0)
        assert {reason.subject for reason in reasons} <= {names[code] for code in seen}


def test_the_most_frequent_of_many_touchpoints_are_tried() -> None:
    names = [f"t{k:02d}" for k in range(MOST_TOUCHPOINTS + 6)]
    events = pd.DataFrame({
        "customer_id": "c0", "touchpoint": names + names[:-6],
        "timestamp": CUTOFF - pd.to_timedelta(np.arange(2 * len(names) - 6) + 1, unit="h"),
    })  # fmt: skip
    reasons = occlusion_reasons(lambda s: 1.0 * (s.stop - s.start), snapshots_of(events).take(np.arange(1)), 99)[0]
    assert {reason.subject for reason in reasons} == set(names[:-6])
