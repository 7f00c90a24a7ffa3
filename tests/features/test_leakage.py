"""Nothing at or after the cutoff changes any feature, bit for bit."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from features.events.schema import EventSchema
from features.journeys.journeys import Journeys, Snapshots
from features.journeys.packing import pack
from features.tabular.features import TabularFeatures

SCHEMA = EventSchema(properties=("agent",), profile=("country",), profile_numeric=("age",))
START = pd.Timestamp("2024-01-01")
CUTOFF = pd.Timestamp("2024-03-01")
N_CUSTOMERS = 5


def random_events(seed: int, n_events: int, *, late: bool = False) -> pd.DataFrame:
    """Random events in every column; times at whole hours, so that some fall on the cutoff; `late`: none before it."""
    r = np.random.default_rng(seed)
    hours = r.integers(0, 120 * 24, n_events)
    begin = CUTOFF if late else START

    def text(prefix: str, size: int, missing: float = 0.0) -> pd.Series:
        values = pd.Series([f"{prefix}{k}" for k in r.integers(0, size, n_events)], dtype="str")
        return values.mask(pd.Series(r.random(n_events) < missing))

    return pd.DataFrame({
        "customer_id": [f"c{k}" for k in r.integers(0, N_CUSTOMERS, n_events)],
        "timestamp": (begin + pd.to_timedelta(hours, unit="h")).astype("datetime64[us]"),
        "touchpoint": r.choice(["view", "buy", "call START", "call COMPLETE", "chat"], n_events),
        "channel": text("ch", 3, 0.2), "stage": text("st", 3), "item": text("it", 8, 0.2),
        "value": np.round(r.normal(5, 10, n_events), 2), "duration_s": r.exponential(60, n_events),
        "satisfaction": np.where(r.random(n_events) < 0.5, np.nan, r.integers(1, 6, n_events)),
        "agent": text("ag", 4, 0.2), "country": text("co", 3, 0.5), "age": r.integers(20, 70, n_events).astype(float),
    })  # fmt: skip


def at_cutoff(events: pd.DataFrame) -> tuple[Journeys, Snapshots]:
    """The five customers at the cutoff, known to the log or not."""
    journeys = pack(events, SCHEMA)
    rows = pd.DataFrame({"customer_id": [f"c{k}" for k in range(N_CUSTOMERS)], "cutoff": CUTOFF})
    return journeys, journeys.at_ids(rows)


def bits(x: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(x), np.float32(np.nan), x).view(np.int32)


TRAINED = TabularFeatures(
    windows_days=(7, 30), min_count=1, drop_redundant=False, properties=("agent",), profile=("country",)
).fit(at_cutoff(random_events(0, 400))[1])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_events=st.integers(1, 80),
    n_added=st.integers(1, 60),
    change=st.sampled_from(["add", "alter", "delete", "at the cutoff", "unseen values"]),
)
def test_future_changes_no_feature(seed: int, n_events: int, n_added: int, change: str) -> None:
    events = random_events(seed, n_events)
    before = TRAINED.transform(at_cutoff(events)[1])
    past, future = events[events["timestamp"] < CUTOFF], events[events["timestamp"] >= CUTOFF]
    added = random_events(seed + 1, n_added, late=True)
    if change == "alter":
        added = random_events(seed + 2, len(future), late=True).assign(timestamp=future["timestamp"].to_numpy())
    elif change == "delete":
        added = added.iloc[:0]
    elif change == "at the cutoff":
        added["timestamp"] = CUTOFF
    elif change == "unseen values":
        added[["touchpoint", "channel", "item", "agent"]] = "never seen"
    kept = pd.concat([past, future]) if change in ("add", "at the cutoff") else past
    if len(kept) + len(added):
        shuffled = pd.concat([added, kept], ignore_index=True)  # the future first in the file: only time may count
        after = TRAINED.transform(at_cutoff(shuffled)[1])
        np.testing.assert_array_equal(bits(before), bits(after))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_fit_does_not_look_past_the_cutoff(seed: int) -> None:
    events = random_events(seed, 150)
    late = random_events(seed + 1, 500, late=True).assign(touchpoint="only later", agent="only later", value=1e9)
    options = {"windows_days": (7, 30), "min_count": 2}
    a = TabularFeatures(**options).fit(at_cutoff(events)[1])
    b = TabularFeatures(**options).fit(at_cutoff(pd.concat([events, late]))[1])
    assert a.to_dict() == b.to_dict()


def test_an_event_before_the_cutoff_does_change_features() -> None:
    events = random_events(3, 60)
    extra = events.iloc[:1].assign(timestamp=CUTOFF - pd.Timedelta(1, "us"))
    before = TRAINED.transform(at_cutoff(events)[1])
    after = TRAINED.transform(at_cutoff(pd.concat([events, extra]))[1])
    assert (bits(before) != bits(after)).any()
