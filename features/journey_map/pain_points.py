"""Pain points of a journey map: where customers leave, loop, wait or complain more than at the other touchpoints.

Each customer counts once a touchpoint. For customer c and touchpoint k, y is

* leave: 1 if the journey ends with a visit of k and nothing came since. Only visits with `quiet_days` of the log after
  them are judged, whether somebody came back or not; nobody leaves after a goal, nor from a touchpoint in `ended` on;
* loop: 1 if c came to k three times within `loop_days`, with something else in between;
* wait: the share of c's gaps after k that are among the longest tenth of the whole map;
* complain: the share of c's visits of k that a complaint of c follows within `complaint_days`; visits that the map does
  not follow for so long are not judged.

The rate of k is the mean of y over its customers, the rest's rate that over all other pairs of customer and touchpoint.
Pairs of one customer are not independent, so the error of the difference is that of two ratios over the same sample of
customers (linearised, with the customer as the unit), and never below that of independent pairs (Agresti and Caffo,
The American Statistician 54, 2000). All tests of a map together are corrected by Benjamini and Hochberg. Points are
ranked by the customers that a touchpoint loses at least against the rest: customers × the lower end of the difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.journey_map.selection import DAY_US, Flags, MapSelection, MapSource, matching, unmatched
from features.journey_map.settings import MapSettings
from features.journey_map.touchpoint_kernels import COMPLAIN, LEAVE, LOOP, N_KINDS, WAIT, pain_moments
from features.journey_map.transitions import Pauses
from features.statistics import Z95, benjamini_hochberg, p_value, ratio

COLUMNS = (
    "rank", "kind", "touchpoint", "customers", "rate", "rest_rate", "difference", "difference_low", "difference_high",
    "p_value", "q_value", "sentence",
)  # fmt: skip
TEXTS = ("kind", "touchpoint", "sentence")
KINDS = {LEAVE: "leave", LOOP: "loop", WAIT: "wait", COMPLAIN: "complain"}
SURE, PERHAPS = 0.05, 0.2  # q-values up to which a point is told, without and with a caution

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Limits:
    """What counts as leaving, looping, waiting, complaining; µs.

    Attributes:
        quiet: a customer without an event for so long has left.
        waits: a longer gap is a long one: a tenth of all gaps are.
        loop: three visits within it are a loop.
        complaint: so long after a visit a complaint may concern it.
        leave_until, complain_until: later visits are not judged.
        judged: (N_KINDS,) which kinds can be judged in this log.
    """

    quiet: int
    waits: int
    loop: int
    complaint: int
    leave_until: int
    complain_until: int
    judged: Flags


def limits_of(selection: MapSource, settings: MapSettings, pauses: Pauses) -> Limits:
    """The limits, from the settings and from the gaps of the log."""
    loop, complaint = int(settings.loop_days * DAY_US), int(settings.complaint_days * DAY_US)
    quiet, begin = _quiet(selection, settings, pauses), selection.begin
    leave_until, complain_until = selection.log_end - 1 - quiet, selection.until - 1 - complaint
    judged = np.zeros(N_KINDS, bool)
    judged[LEAVE], judged[LOOP] = begin <= leave_until, True
    judged[WAIT] = bool(pauses.waits_us > 0)
    judged[COMPLAIN] = _complains(selection, settings).any() and begin <= complain_until
    waits = int(pauses.waits_us) if judged[WAIT] else 0
    return Limits(quiet, waits, loop, complaint, leave_until, complain_until, judged)


def _quiet(selection: MapSource, settings: MapSettings, pauses: Pauses) -> int:
    """µs; see `MapSettings.quiet_days`. A pause within a session is never a departure."""
    if settings.quiet_days is not None:
        return int(settings.quiet_days * DAY_US)
    quarter = (selection.log_end - selection.begin) / 4
    longest = pauses.return_us if pauses.return_us > 0 else quarter
    return int(max(min(longest, quarter), settings.session_gap_minutes * 60e6))


def _complains(selection: MapSource, settings: MapSettings) -> Flags:
    return matching(selection.touchpoint.names, settings.complaints)


def moments_of(selection: MapSelection, settings: MapSettings, limits: Limits) -> tuple[Floats, Floats]:
    """The sums over customers that `pain_points` needs; those of disjoint sets of customers add up."""
    names = selection.touchpoint.names
    closing = matching(names, (*settings.goals, *settings.ended))
    moments, totals = pain_moments(
        selection.touchpoint.codes, selection.journeys.t, selection.start, selection.stop, selection.goes_on,
        selection.goals(matching(names, settings.ended))[0], len(names), limits.judged, ~closing,
        _complains(selection, settings), limits.leave_until, limits.complain_until, limits.waits, limits.loop,
        limits.complaint,
    )  # fmt: skip
    return moments, totals


def compare_with_rest(moments: Floats, totals: Floats) -> tuple[Floats, Floats, Floats]:
    """Rate, rate of the rest, and standard error of their difference for one kind, from the kernel's sums.

    Args:
        moments: (k, N_MOMENTS).
        totals: (5,).

    Returns:
        Three times (k,), NaN where a touchpoint or the rest has no customers.
    """
    n, y, yy, a, m, ya, ym, aa, am, mm = moments.T[:10]
    rest_n, rest_y = totals[1] - n, totals[0] - y
    r, s = ratio(y, n), ratio(rest_y, rest_n)
    of_touchpoint = yy - 2 * r * y + r * r * n  # sum of (y - r)²
    of_customers = aa - 2 * s * am + s * s * mm  # of (Y - sM)², over its customers
    all_of = totals[2] - 2 * s * totals[3] + s * s * totals[4]  # over all customers
    times_y = ya - s * ym  # of y (Y - sM)
    rest = of_customers - 2 * (times_y - s * (a - s * m)) + yy - 2 * s * y + s * s * n
    both = times_y - yy + s * y - r * (a - s * m - y + s * n)
    nr = np.where(rest_n > 0, rest_n, np.nan)
    nk = np.where(n > 0, n, np.nan)
    clustered = of_touchpoint / nk**2 - 2 * both / (nk * nr) + (rest + all_of - of_customers) / nr**2
    p, q = (y + 1) / (n + 2), (rest_y + 1) / (rest_n + 2)
    independent = p * (1 - p) / (n + 2) + q * (1 - q) / (rest_n + 2)
    return r, s, np.sqrt(np.maximum(clustered, independent))


def pain_points(selection: MapSource, settings: MapSettings, pauses: Pauses) -> tuple[pd.DataFrame, list[str]]:
    """Find the pain points of a selection.

    Returns:
        The table: rank, kind, touchpoint, customers (whom it happened to), rate, rest_rate, difference with its 95 %
        interval, p_value (two-sided), q_value, sentence; only touchpoints that do worse than the rest, with a q-value
        up to `PERHAPS`. And what to say.
    """
    limits = limits_of(selection, settings, pauses)
    moments, totals = selection.total(partial(moments_of, settings=settings, limits=limits))
    tests = pd.concat([_tested(kind, moments[kind], totals[kind], settings) for kind in KINDS], ignore_index=True)
    tests["q_value"] = benjamini_hochberg(tests["p_value"])
    tests = tests[(tests["difference"] > 0) & (tests["q_value"] <= PERHAPS)]
    at_least = tests["n"] * tests["difference_low"]
    order = np.lexsort((tests["kind_code"], tests["code"], -tests["difference"], -at_least))
    table = tests.iloc[order].head(settings.top_pain_points).reset_index(drop=True)
    table["rank"] = np.arange(1, len(table) + 1)
    table["kind"] = pd.Series([KINDS[code] for code in table["kind_code"]], dtype="str")
    table["touchpoint"] = pd.Series([selection.names[code] for code in table["code"]], dtype="str")
    table["sentence"] = pd.Series([_sentence(row, limits, pauses) for row in table.to_dict("records")], dtype="str")
    return table[list(COLUMNS)], _remarks(selection, settings, limits)


def _tested(kind: int, moments: Floats, totals: Floats, settings: MapSettings) -> pd.DataFrame:
    """One row a touchpoint with customers enough."""
    rate, rest, error = compare_with_rest(moments, totals)
    n = moments[:, 0]
    code = np.flatnonzero((n >= settings.fewest_customers) & (totals[1] - n >= settings.fewest_customers))
    d, se = (rate - rest)[code], error[code]
    return pd.DataFrame(
        {
            "kind_code": kind,
            "code": code,
            "n": n[code].astype(np.int64),
            "customers": moments[code, 10].astype(np.int64),
            "rate": rate[code].clip(0, 1),
            "rest_rate": rest[code].clip(0, 1),
            "difference": d,
            "difference_low": np.maximum(d - Z95 * se, -1.0),
            "difference_high": np.minimum(d + Z95 * se, 1.0),
            "p_value": p_value(d, se),
        }
    )


def _sentence(point: Any, limits: Limits, pauses: Pauses) -> str:
    name, n, hit, code = (point[key] for key in ("touchpoint", "n", "customers", "code"))
    share, rest = percent(point["rate"]), percent(point["rest_rate"])
    sure = "" if point["q_value"] <= SURE else " This may be chance."
    if point["kind"] == "leave":
        sentence = f"{hit:,} of {n:,} customers ({share}) leave after {name}; {rest} after the other touchpoints."
    elif point["kind"] == "loop":
        within = f"three times within {duration(limits.loop)}"
        sentence = f"{hit:,} of {n:,} customers ({share}) come to {name} {within}; {rest} to the other touchpoints."
    elif point["kind"] == "wait":
        sentence = (
            f"After {name} the next step takes {duration(pauses.by_source_us[code])} (median), over the whole map "
            f"{duration(pauses.median_us)}; {share} of the waits are longer than {duration(limits.waits)}, {rest} "
            f"elsewhere (each customer weighs the same); it happened to {hit:,} of {n:,} customers."
        )
    else:
        sentence = (
            f"{share} of the visits of {name} are followed by a complaint within {duration(limits.complaint)}, {rest} "
            f"elsewhere (each customer weighs the same); it happened to {hit:,} of {n:,} customers."
        )
    return sentence + sure


def percent(share: float) -> str:
    """A share for people: a decimal where it is small.

    >>> percent(0.5), percent(0.004)
    ('50%', '0.4%')
    """
    return f"{100 * share:.{0 if share >= 0.1 or share == 0 else 1}f}%"


def duration(us: float) -> str:
    """µs in the unit that suits.

    >>> duration(90e6), duration(36 * 3_600e6), duration(0.2e6)
    ('1.5 min', '36 h', '0.2 s')
    """
    for unit, size in (("days", 86_400e6), ("h", 3_600e6), ("min", 60e6)):
        if us >= (2 if unit == "days" else 1) * size:
            return f"{us / size:.{0 if us >= 10 * size else 1}f}".removesuffix(".0") + f" {unit}"
    return f"{us / 1e6:.{0 if us >= 10e6 else 1}f}".removesuffix(".0") + " s"


def _remarks(selection: MapSource, settings: MapSettings, limits: Limits) -> list[str]:
    names = selection.touchpoint.names
    notes = [*unmatched(names, settings.complaints, "a complaint"), *unmatched(names, settings.ended, "an ending")]
    if limits.judged[LEAVE]:
        source = "as set" if settings.quiet_days is not None else "read off the pauses in the log"
        notes.append(
            f"A customer without an event for {duration(limits.quiet)} counts as gone ({source}); visits in the "
            f"log's last {duration(limits.quiet)} are not judged."
        )
    else:
        notes.append("The log is too short after its events to say who has left.")
    if not settings.complaints:
        notes.append("No touchpoints are named as complaints: nothing is said about who complains.")
    elif _complains(selection, settings).any() and not limits.judged[COMPLAIN]:
        notes.append(
            f"The map spans less than {duration(limits.complaint)}: too short to say who complains after what."
        )
    if not limits.judged[WAIT]:
        notes.append("All events of a customer fall together: nothing is said about waiting.")
    return notes
