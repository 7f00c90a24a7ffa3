"""What distinguishes each segment from the rest: effect sizes of readable features, in words.

    effects = segment_effects(tabular, snapshots, place, segmentation.segments)
    effects[effects.segment_id == "s01"].words

The effect of a number is Cliff's delta (Cliff 1993, Psychol. Bull. 114:494), also called the rank-biserial correlation:
over pairs of a customer of the segment and one of the rest, the share in which the former has more minus the share in
which the latter has. For a yes-or-no column it equals the difference of the two shares, so that numbers and yes-or-no
columns share one ranking. At −1 and 1 the segment and the rest do not overlap.

p-values are of the Mann–Whitney test, corrected over all columns and segments (Benjamini & Hochberg 1995); the
intervals are widened, because only the strongest effects are shown (Benjamini & Yekutieli 2005, JASA 100:71). Segments
that were clustered in the same features differ by construction: then the effects are a description, not evidence that
the segments exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtr

from features.errors import DataError
from features.journeys.journeys import Snapshots
from features.settings import Section
from features.statistics import benjamini_hochberg, difference, normal_quantile
from features.tabular.features import TabularFeatures
from models.segments.contract import Segment
from models.segments.insight.columns import ReadableColumn, column_values, readable_columns
from models.segments.insight.profiles import check_places, last_rows

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

STRENGTHS = ((0.474, "much "), (0.33, "clearly "), (0.147, ""))  # Romano et al. 2006, of |delta|; below: "slightly "
FEWEST_VALUES = 5  # in the segment, and in the rest
COLUMNS = (
    *("segment_id", "segment", "rank", "feature", "group", "meaning", "effect", "effect_low", "effect_high"),
    *("q_value", "in_segment", "in_rest", "customers_known", "words"),
)


class EffectSettings(Section):
    """Which effects are shown.

    Attributes:
        most: effects of a segment, one for each subject.
        weakest: smaller effects are left out.
        least_known: share of the segment and of the rest that must have a value.
        q_value: the false discovery rate among those shown.
        alike: of two columns whose rank correlation exceeds this, only the stronger is shown.
        most_rows: larger data are sampled down to so many customers.
        seed: of the sampling.
    """

    most: int = 6
    weakest: float = 0.1
    least_known: float = 0.5
    q_value: float = 0.05
    alike: float = 0.8
    most_rows: int = 20_000
    seed: int = 0


def segment_effects(
    tabular: TabularFeatures,
    snapshots: Snapshots,
    place: npt.ArrayLike,
    segments: Sequence[Segment],
    settings: EffectSettings | None = None,
) -> pd.DataFrame:
    """What distinguishes the segments.

    Args:
        tabular: fitted features.
        snapshots: (n,) rows; of several of a customer the last is taken.
        place: (n,) place of each row in `segments`, -1 for none (they belong to the rest).
        segments: the partition.
        settings: which effects are shown.

    Returns:
        Rows by segment, strongest first: segment_id, segment, rank, feature, group, meaning, effect (-1..1),
        effect_low, effect_high, q_value, in_segment and in_rest (median, or share for yes-or-no columns),
        customers_known, words.
    """
    places = check_places(segments, snapshots, place)
    settings = settings or EffectSettings()
    rows = last_rows(snapshots)
    if len(rows) > settings.most_rows:
        rows = np.sort(np.random.default_rng(settings.seed).choice(rows, settings.most_rows, replace=False))
    columns = readable_columns(tabular)
    x = column_values(columns, tabular.transform(snapshots.take(rows)), tabular.get_feature_names_out())
    return effects_of_columns(x, columns, places[rows], segments, settings)


def effects_of_columns(
    x: npt.NDArray[np.float32],
    columns: Sequence[ReadableColumn],
    place: npt.ArrayLike,
    segments: Sequence[Segment],
    settings: EffectSettings | None = None,
) -> pd.DataFrame:
    """The same from (n, c) columns, one row a customer.

    Raises:
        DataError: shapes that do not fit.
    """
    settings, places = settings or EffectSettings(), np.asarray(place, np.int64)
    if x.shape != (len(places), len(columns)):
        raise DataError(f"x is {x.shape}, but there are {len(places)} places and {len(columns)} columns")
    tests = _Tests.of(x, places, len(segments), settings.least_known)
    q = benjamini_hochberg(tests.p.ravel()).reshape(tests.p.shape)  # (c, k)
    chosen = [_strongest(tests, q[:, s], s, columns, settings) for s in range(len(segments))]
    # The share of intervals that miss must stay 5 % among the chosen, not among all that were tried.
    level = 1 - settings.q_value * max(1, sum(map(len, chosen))) / max(1, int(np.isfinite(q).sum()))
    rows = [
        {"segment_id": segments[s].id, "segment": segments[s].name, "rank": rank, "q_value": q[c, s]}
        | _effect(x[:, c], columns[c], places == s, float(tests.delta[c, s]), bool(tests.yes_or_no[c]), level)
        for s, strongest in enumerate(chosen)
        for rank, c in enumerate(strongest, 1)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


@dataclass(frozen=True)
class _Tests:
    """Every column against every segment.

    Attributes:
        ranks: (n, c) mean ranks of the known values, NaN elsewhere.
        delta: (c, k) effects; NaN where too few are known.
        p: (c, k) two-sided.
        yes_or_no: (c,) the column has only 0 and 1.
    """

    ranks: Floats
    delta: Floats
    p: Floats
    yes_or_no: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, x: npt.NDArray[np.float32], places: Ints, k: int, least_known: float) -> _Tests:
        """Every U statistic (Mann & Whitney 1947) from one ranking of each column.

        The same as `scipy.stats.mannwhitneyu` (asymptotic, without continuity correction, NaN left out), which would
        rank each column again for each segment, in a Python loop where there are NaN.
        """
        ranks = pd.DataFrame(x).rank().to_numpy()
        present = np.isfinite(ranks)
        member = (places[:, None] == np.arange(k)).astype(np.float64)  # (n, k)
        total = present.sum(axis=0)[:, None].astype(np.float64)  # (c, 1)
        inside = present.T.astype(np.float64) @ member  # (c, k)
        outside = total - inside
        u = np.nan_to_num(ranks).T @ member - inside * (inside + 1) / 2
        sizes = member.sum(axis=0)
        enough = (inside >= np.maximum(FEWEST_VALUES, least_known * sizes)) & (
            outside >= np.maximum(FEWEST_VALUES, least_known * (len(x) - sizes))
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            delta = np.where(enough, 2 * u / (inside * outside) - 1, np.nan)
            variance = inside * outside / 12 * (total + 1 - _ties(ranks)[:, None] / (total * (total - 1)))  # with ties
            z = (u - inside * outside / 2) / np.sqrt(variance)
        p = np.where(enough & (variance > 0), 2 * ndtr(-np.abs(z)), np.nan)
        return cls(ranks, delta, p, yes_or_no=((x == 0) | (x == 1) | np.isnan(x)).all(axis=0))


def _ties(ranks: Floats) -> Floats:
    """(c,) the sum of t³ − t over groups of tied values."""
    counts = [np.unique(column[np.isfinite(column)], return_counts=True)[1].astype(np.float64) for column in ranks.T]
    return np.array([(t**3 - t).sum() for t in counts])


def _strongest(
    tests: _Tests, q: Floats, segment: int, columns: Sequence[ReadableColumn], settings: EffectSettings
) -> list[int]:
    """The strongest significant columns, easily read ones first: one a subject, none that says much the same."""
    size = np.where(q <= settings.q_value, np.abs(tests.delta[:, segment]), 0.0)
    chosen: list[int] = []
    subjects: set[str] = set()
    for c in np.argsort(-size * [column.ease for column in columns], kind="stable"):
        if len(chosen) >= settings.most:
            break
        if (
            size[c] >= settings.weakest
            and columns[c].group not in subjects
            and all(_alike(tests.ranks, int(c), d) <= settings.alike for d in chosen)
        ):
            chosen.append(int(c))
            subjects.add(columns[c].group)
    return chosen


def _alike(ranks: Floats, a: int, b: int) -> float:
    """|rank correlation| of two columns over the customers that have both."""
    both = np.isfinite(ranks[:, a]) & np.isfinite(ranks[:, b])
    u, v = ranks[both, a], ranks[both, b]
    spread = u.std() * v.std() if len(u) else 0.0
    return float(abs(np.mean((u - u.mean()) * (v - v.mean())) / spread)) if spread > 0 else 0.0


def _effect(
    x: npt.NDArray[np.float32],
    column: ReadableColumn,
    inside: npt.NDArray[np.bool_],
    delta: float,
    yes_or_no: bool,
    level: float,
) -> dict[str, object]:
    """One row of the table, from (n,) values of a column."""
    values = x.astype(np.float64)
    present = np.isfinite(values)
    a, b = values[present & inside], values[present & ~inside]
    meaning = f"{column.meaning[:1].upper()}{column.meaning[1:]}"
    if yes_or_no:
        low, high = (float(side[0]) for side in difference(a.sum(), len(a), b.sum(), len(b), level)[1:3])
        typical = float(a.mean()), float(b.mean())
        words = f"{meaning}: {typical[0]:.0%} of the segment, {typical[1]:.0%} of the rest"
    else:
        low, high = delta_interval(delta, len(a), len(b), level)
        typical = float(np.median(a)), float(np.median(b))
        words = f"{meaning}: {_comparison(delta, a, b)}"
    return {
        **{"feature": column.name, "group": column.group, "meaning": column.meaning},
        **{"effect": delta, "effect_low": low, "effect_high": high},
        **{"in_segment": typical[0], "in_rest": typical[1], "customers_known": int(present.sum()), "words": words},
    }


def delta_interval(delta: float, inside: int, outside: int, level: float) -> tuple[float, float]:
    """The interval of Cliff's delta (Newcombe 2006, Stat. Med. 25:559, method 5, on θ = (δ + 1) / 2).

    It holds the θ whose distance from the observed one is at most z standard errors (Hanley & McNeil 1982) under θ
    itself, so that segments which do not overlap with the rest have an interval, too. Ties make it a little too wide.

    Args:
        delta: the observed effect, -1..1.
        inside: customers of the segment with a value.
        outside: customers of the rest with a value.
        level: how often the interval holds the true effect.

    >>> [round(side, 3) for side in delta_interval(1.0, 10, 10, 0.95)]
    [0.6, 1.0]
    """
    observed, z = (delta + 1) / 2, normal_quantile(level)

    def too_far(theta: float) -> bool:
        more = (inside + outside) / 2 - 1
        spread = 1 + more * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (observed - theta) ** 2 > z * z * theta * (1 - theta) / (inside * outside) * spread

    sides = []
    for far in (0.0, 1.0):
        near = observed
        for _ in range(50):  # bisection: a root finder would stop at θ = 0 or 1, which solve the equation for δ = ±1
            middle = (far + near) / 2
            far, near = (middle, near) if too_far(middle) else (far, middle)
        sides.append(2 * near - 1)
    return sides[0], sides[1]


def _comparison(delta: float, a: Floats, b: Floats) -> str:
    strength = next((word for size, word in STRENGTHS if abs(delta) >= size), "slightly ")
    kind, inside, outside = "median", float(np.median(a)), float(np.median(b))
    if f"{inside:.3g}" == f"{outside:.3g}":  # as with counts that are mostly 0
        kind, inside, outside = "mean", float(a.mean()), float(b.mean())
    direction = "higher" if delta > 0 else "lower"
    return f"{strength}{direction} ({kind} {number_words(inside)}, others {number_words(outside)})"


def number_words(value: float) -> str:
    """A number for reading: three digits, thousands separated.

    >>> number_words(12345.6), number_words(0.01234), number_words(-3.0)
    ('12,300', '0.0123', '−3')
    """
    if value == 0 or not np.isfinite(value):
        return "0" if value == 0 else "unknown"
    rounded = float(f"{value:.3g}")
    return (f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{rounded:g}").replace("-", "−")
