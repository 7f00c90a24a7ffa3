"""Events around cutoffs: whether one of some touchpoints occurs in a window before or after each cutoff."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from features.errors import ConfigError
from features.events.stages import fits
from features.journeys.journeys import Journeys, Snapshots
from features.labels.kernels import any_after, any_before
from features.timestamps import days_us

Flags = npt.NDArray[np.bool_]
Int64s = npt.NDArray[np.int64]
FAILURES = r"cancel|return|refund|rück|storn|complain|unsub|declin|fail|abandon"


def occurs_within(snapshots: Snapshots, touchpoints: Sequence[str], days: float) -> Flags:
    """(n,) bool: one of the touchpoints in `[cutoff - days, cutoff)`."""
    return _occurs_since(snapshots, touchpoints, snapshots.cutoff - days_us(days))


def occurs_before(snapshots: Snapshots, touchpoints: Sequence[str]) -> Flags:
    """(n,) bool: one of the touchpoints at any time before the cutoff."""
    return _occurs_since(snapshots, touchpoints, np.full(len(snapshots), np.iinfo(np.int64).min))


def occurs_after(snapshots: Snapshots, touchpoints: Sequence[str], horizon_days: float) -> Flags:
    """(n,) bool: one of the touchpoints in `[cutoff, cutoff + horizon)`."""
    log = snapshots.journeys
    codes, chosen = log.categories["touchpoint"].codes, touchpoint_flags(log, touchpoints)
    until = snapshots.cutoff + days_us(horizon_days)
    return np.asarray(any_after(log.t, codes, chosen, snapshots.stop, journey_ends(snapshots), until))


def journey_ends(snapshots: Snapshots) -> Int64s:
    """(n,) one past the last event of each snapshot's customer, events after the cutoff included."""
    customer = snapshots.customer
    return np.where(customer >= 0, snapshots.journeys.offsets[customer + 1], snapshots.stop)


def touchpoint_flags(journeys: Journeys, touchpoints: Sequence[str]) -> Flags:
    """(n_names + 1,) bool by touchpoint code; the last entry is for a missing touchpoint, code -1, and is False.

    Raises:
        ConfigError: a name or pattern that fits no touchpoint of the log.
    """
    names = journeys.categories["touchpoint"].names
    flags = np.zeros(len(names) + 1, np.bool_)
    for pattern in touchpoints:
        hits = [code for code, name in enumerate(names) if fits(name, pattern)]
        if not hits:
            raise ConfigError(_unknown_touchpoint(pattern, names))
        flags[hits] = True
    return flags


def customers_by_name(journeys: Journeys) -> Int64s:
    """(n_customers,) customer indices in the order of their identifiers as text."""
    return np.asarray(pc.sort_indices(journeys.customer_ids)).astype(np.int64)


def _occurs_since(snapshots: Snapshots, touchpoints: Sequence[str], since: Int64s) -> Flags:
    log = snapshots.journeys
    codes, chosen = log.categories["touchpoint"].codes, touchpoint_flags(log, touchpoints)
    return np.asarray(any_before(log.t, codes, chosen, snapshots.start, snapshots.stop, since))


def _unknown_touchpoint(pattern: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(pattern, names, n=1, cutoff=0.5)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    listed = ", ".join(sorted(names)[:20]) + (", …" if len(names) > 20 else "")
    return f"The task names the touchpoint '{pattern}', which the log does not have.{hint} It has: {listed}."


def touchpoint_text(touchpoints: Sequence[str]) -> str:
    """Touchpoints in a sentence, as Markdown.

    >>> touchpoint_text(("*",)), touchpoint_text(("buy", "pay"))
    ('any event', '`buy` or `pay`')
    """
    return "any event" if tuple(touchpoints) == ("*",) else " or ".join(f"`{name}`" for name in touchpoints)


def matching_names(touchpoints: Sequence[str], words: str) -> list[str]:
    """Touchpoints, at most twelve, whose names have one of some words (a regular expression) and no word of failure.

    >>> matching_names(["view", "Purchase", "purchase_cancelled"], "purchase|order")
    ['Purchase']
    """
    included, excluded = re.compile(words, re.IGNORECASE), re.compile(FAILURES, re.IGNORECASE)
    return [name for name in touchpoints if included.search(name) and not excluded.search(name)][:12]
