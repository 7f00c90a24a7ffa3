"""What sets each segment apart from the rest: effect sizes of readable features, in words.

    effects = segment_effects(tabular, snapshots, place, segmentation.segments)
    effects[effects.segment_id == "s01"].words

The effect of a number is Cliff's delta (Cliff 1993, Psychol. Bull. 114:494), also called the rank-biserial correlation:
the share of pairs in which the customer of the segment has more, less the share in which the other has. For a yes-or-no
column it is the difference of the two shares, the same thing, so the two can be ranked together. −1 and 1 part the
segment from the rest completely.

p-values are of the Mann–Whitney test, corrected over everything that was tried (Benjamini & Hochberg 1995); intervals
of what is shown are widened for having been picked out of many (Benjamini & Yekutieli 2005, JASA 100:71). Where
segments were found in the same features they differ by construction: then read the effects as a description, not as
evidence that the segments exist.
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
from features.statistics import benjamini_hochberg, normal_quantile
from features.tabular.features import TabularFeatures
from models.segments.contract import Segment
from models.segments.insight.columns import ReadableColumn, column_values, readable_columns
from models.segments.insight.intervals import difference_of_shares
from models.segments.insight.profiles import check_places, last_rows

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

STRENGTHS = ((0.474, "much "), (0.33, "clearly "), (0.147, ""))  # Romano et al. 2006, of |delta|; below: "slightly "
FEWEST = 5  # known values on either side
COLUMNS = (
    *("segment_id", "segment", "rank", "feature", "group", "meaning", "effect", "effect_low", "effect_high"),
    *("q_value", "in_segment", "in_rest", "customers_known", "words"),
)


class EffectSettings(Section):
    """How much to tell.

    Attributes:
        most: how many effects a segment, one a subject.
        weakest: effects of a smaller size are left out.
        least_known: share of the segment and of the rest of whom a column must be known.
        q_value: the false discovery rate among those shown.
        alike: of two columns whose rank correlation exceeds this, only the stronger is told.
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
    """What sets the segments apart.

    Args:
        tabular: fitted features.
        snapshots: (n,) rows; of several of a customer the last is taken.
        place: (n,) place of each row in `segments`, -1 for none (they belong to the rest).
        segments: the partition.
        settings: how much to tell.

    Returns:
        Rows by segment, strongest first: segment_id, segment, rank, feature, group, meaning, effect (-1..1),
        effect_low, effect_high, q_value, in_segment and in_rest (median, or share for yes-or-no columns),
        customers_known, words.
    """
    places = check_places(segments, snapshots, place)
    asked = settings or EffectSettings()
    rows = last_rows(snapshots)
    if len(rows) > asked.most_rows:
        rows = np.sort(np.random.default_rng(asked.seed).choice(rows, asked.most_rows, replace=False))
    columns = readable_columns(tabular)
    x = column_values(columns, tabular.transform(snapshots.take(rows)), tabular.get_feature_names_out())
    return effects_of_columns(x, columns, places[rows], segments, asked)


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
    asked, places = settings or EffectSettings(), np.asarray(place, np.int64)
    if x.shape != (len(places), len(columns)):
        raise DataError(f"x is {x.shape}, but there are {len(places)} places and {len(columns)} columns")
    tests = _Tests.of(x, places, len(segments), asked.least_known)
    q = benjamini_hochberg(tests.p.ravel()).reshape(tests.p.shape)  # (c, k)
    chosen = [_chosen(tests, q[:, s], s, columns, asked) for s in range(len(segments))]
    level = 1 - asked.q_value * max(1, sum(map(len, chosen))) / max(1, int(np.isfinite(q).sum()))
    told = [
        _told(x, places, tests, columns, c, s, rank, level) | {"q_value": q[c, s]} | _named(segments[s])
        for s, some in enumerate(chosen)
        for rank, c in enumerate(some, 1)
    ]
    return pd.DataFrame(told, columns=list(COLUMNS))


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
        """Rank once; sums of ranks by segment give every U statistic (Mann & Whitney 1947)."""
        ranks = pd.DataFrame(x).rank().to_numpy()
        known = np.isfinite(ranks)
        member = (places[:, None] == np.arange(k)).astype(np.float64)  # (n, k)
        total = known.sum(axis=0)[:, None].astype(np.float64)  # (c, 1)
        inside = known.T.astype(np.float64) @ member  # (c, k)
        outside = total - inside
        u = np.nan_to_num(ranks).T @ member - inside * (inside + 1) / 2
        sizes = member.sum(axis=0)
        enough = (inside >= np.maximum(FEWEST, least_known * sizes)) & (
            outside >= np.maximum(FEWEST, least_known * (len(x) - sizes))
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            delta = np.where(enough, 2 * u / (inside * outside) - 1, np.nan)
            variance = inside * outside / 12 * (total + 1 - _ties(ranks)[:, None] / (total * (total - 1)))
            z = (u - inside * outside / 2) / np.sqrt(variance)
        p = np.where(enough & (variance > 0), 2 * ndtr(-np.abs(z)), np.nan)
        both = ((x == 0) | (x == 1) | np.isnan(x)).all(axis=0)
        return cls(ranks, delta, p, both)


def _ties(ranks: Floats) -> Floats:
    """(c,) the sum of t³ − t over groups of tied values."""
    found = np.zeros(ranks.shape[1])
    for c, column in enumerate(ranks.T):
        counts = np.unique(column[np.isfinite(column)], return_counts=True)[1].astype(np.float64)
        found[c] = (counts**3 - counts).sum()
    return found


def _chosen(
    tests: _Tests, q: Floats, segment: int, columns: Sequence[ReadableColumn], asked: EffectSettings
) -> list[int]:
    """The strongest sure columns, one a subject and without those that say nearly the same; easily read ones first."""
    size = np.where(q <= asked.q_value, np.abs(tests.delta[:, segment]), 0.0)
    found: list[int] = []
    subjects: set[str] = set()
    for c in np.argsort(-size * [column.ease for column in columns], kind="stable"):
        if len(found) >= asked.most:
            break
        if (
            size[c] >= asked.weakest
            and columns[c].group not in subjects
            and all(_alike(tests.ranks, int(c), d) <= asked.alike for d in found)
        ):
            found.append(int(c))
            subjects.add(columns[c].group)
    return found


def _alike(ranks: Floats, a: int, b: int) -> float:
    """|rank correlation| of two columns where both are known."""
    both = np.isfinite(ranks[:, a]) & np.isfinite(ranks[:, b])
    u, v = ranks[both, a], ranks[both, b]
    spread = u.std() * v.std() if len(u) else 0.0
    return float(abs(np.mean((u - u.mean()) * (v - v.mean())) / spread)) if spread > 0 else 0.0


def _told(
    x: npt.NDArray[np.float32],
    places: Ints,
    tests: _Tests,
    columns: Sequence[ReadableColumn],
    c: int,
    segment: int,
    rank: int,
    level: float,
) -> dict[str, object]:
    """One row of the table."""
    column, values = columns[c], x[:, c].astype(np.float64)
    known = np.isfinite(values)
    a, b = values[known & (places == segment)], values[known & (places != segment)]
    if tests.yes_or_no[c]:
        low, high = (float(side) for side in difference_of_shares(a.sum(), len(a), b.sum(), len(b), level))
        typical = float(a.mean()), float(b.mean())
        words = _share_words(column.meaning, *typical)
    else:
        low, high = delta_interval(float(tests.delta[c, segment]), len(a), len(b), level)
        typical = float(np.median(a)), float(np.median(b))
        words = _number_words(column.meaning, float(tests.delta[c, segment]), a, b)
    return {
        **{"rank": rank, "feature": column.name, "group": column.group, "meaning": column.meaning},
        **{"effect": tests.delta[c, segment], "effect_low": low, "effect_high": high},
        **{"in_segment": typical[0], "in_rest": typical[1], "customers_known": int(known.sum()), "words": words},
    }


def delta_interval(delta: float, inside: int, outside: int, level: float) -> tuple[float, float]:
    """The interval of Cliff's delta (Newcombe 2006, Stat. Med. 25:559, method 5, on θ = (δ + 1) / 2).

    Those θ are kept from which the one seen is not too many of Hanley & McNeil's standard errors away; so a complete
    parting has an interval, too. Ties make it a little too wide.

    Args:
        delta: the effect seen, -1..1.
        inside: how many have the one kind of value.
        outside: how many the other.
        level: how often the interval holds the true effect.

    >>> [round(side, 3) for side in delta_interval(1.0, 10, 10, 0.95)]
    [0.6, 1.0]
    """
    seen, z = (delta + 1) / 2, normal_quantile(level)

    def too_far(theta: float) -> bool:
        more = (inside + outside) / 2 - 1
        spread = 1 + more * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (seen - theta) ** 2 > z * z * theta * (1 - theta) / (inside * outside) * spread

    sides = []
    for far in (0.0, 1.0):
        near = seen
        for _ in range(50):
            middle = (far + near) / 2
            far, near = (middle, near) if too_far(middle) else (far, middle)
        sides.append(2 * near - 1)
    return sides[0], sides[1]


def _number_words(meaning: str, delta: float, a: Floats, b: Floats) -> str:
    strength = next((word for size, word in STRENGTHS if abs(delta) >= size), "slightly ")
    kind, inside, outside = "median", float(np.median(a)), float(np.median(b))
    if f"{inside:.3g}" == f"{outside:.3g}":  # as with counts that are mostly 0
        kind, inside, outside = "mean", float(a.mean()), float(b.mean())
    direction = "higher" if delta > 0 else "lower"
    figures = f"{kind} {number_words(inside)} against {number_words(outside)} of the rest"
    return f"{meaning[:1].upper()}{meaning[1:]}: {strength}{direction} ({figures})"


def _share_words(meaning: str, inside: float, outside: float) -> str:
    return f"{meaning[:1].upper()}{meaning[1:]}: {inside:.0%} of them, {outside:.0%} of the rest"


def number_words(value: float) -> str:
    """A number for reading: three digits, thousands set apart.

    >>> number_words(12345.6), number_words(0.01234), number_words(-3.0)
    ('12,300', '0.0123', '−3')
    """
    if value == 0 or not np.isfinite(value):
        return "0" if value == 0 else "not known"
    rounded = float(f"{value:.3g}")
    return (f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{rounded:g}").replace("-", "−")


def _named(segment: Segment) -> dict[str, object]:
    return {"segment_id": segment.id, "segment": segment.name}
