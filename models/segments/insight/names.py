"""Short names of clusters from their effects: "High value, frequent", "Inactive for 149 days, few visits".

A name describes behaviour in the words of this file; of the log's own words it takes touchpoints, channels and stages
only. Items, profile columns and other properties could identify a person and never get into a name.

>>> effects = pd.DataFrame({"segment_id": ["s01", "s01"], "feature": ["recency_days", "value_all"],
...                         "effect": [0.9, -0.5], "in_segment": [149.2, 12.0]})
>>> segment_names(effects, ["s01"])
{'s01': 'Inactive for 149 days, low value'}
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, count

import pandas as pd

from models.segments.contract import Segment

LONGEST = 40  # characters
LONGEST_WORD = 18  # characters of a log's own word
MOST_PARTS = 3
NO_WORDS = "Similar to the others"
WORDS_OF_THE_LOG = ("touchpoint", "channel", "stage")
PERSONAL = re.compile(r"[@\d]")  # e-mail addresses, numbers of persons or orders


@dataclass(frozen=True)
class Phrase:
    """Words for high and low values of a kind of feature.

    Attributes:
        subject: features of one subject give one part of a name.
        high: the words for more than the rest, with `{days}` for the median; empty: no words.
        low: the words for less.
    """

    subject: str
    high: str
    low: str


# The first pattern that matches a feature's whole name decides; features without a match give no words.
PHRASES = tuple(
    (re.compile(pattern), Phrase(*words))
    for pattern, *words in (
        (r"recency_days|gap_current|day_gap_current", "recency", "inactive for {days}", "recently active"),
        (r"(day_)?gap_current_(to_.*|z)|(day_)?gap_share_longer", "overdue", "overdue", "on time"),
        (r"events_share_second_half", "", "", ""),  # with a single visit, all events are in the first half
        (r"value_share_.*|value_change_.*|events_share_.*|events_growth_.*", "trend", "growing", "declining"),
        (r"value_\w+|valued_events", "value", "high value", "low value"),
        (r"basket_(last_to_mean|slope)", "basket trend", "growing baskets", "shrinking baskets"),
        (r"basket_min", "", "", ""),  # negative after a return
        (r"basket_std", "basket spread", "uneven baskets", "even baskets"),
        (r"basket_\w+", "basket", "large baskets", "small baskets"),
        (r"(day_)?gap_(std|variation)", "rhythm", "irregular", "regular"),
        (r"(day_)?gap_\w+", "pace", "long gaps", "short gaps"),
        (r"bounce_share", "depth", "single-event visits", "long visits"),
        (r"visit_(seconds|events)_\w+", "depth", "long visits", "short visits"),
        (r"duration_s_\w+", "depth", "long stays", "short stays"),
        (r"events_per_\w+|active_days_share|active_months_share", "density", "high activity", "low activity"),
        (r"visits\w*|events_\w+|active_\w+|longest_streak_days", "frequency", "frequent", "few visits"),
        (r"tenure_days", "tenure", "long-standing", "new"),
        (r"span_days", "span", "long history", "short history"),
        (r"return_recency_days", "", "", ""),
        (r"return(s|ed)_\w+", "returns", "many returns", "few returns"),
        (r"items_new\w*|item_new\w*", "novelty", "tries new items", "few new items"),
        (r"item_repeat\w*|items_repeated\w*", "repeats", "repeat purchases", "no repeats"),
        (r"item_top_share", "variety", "one favourite item", "wide range"),
        (r"items_distinct_per_line", "repeats", "no repeats", "repeat purchases"),
        (r"item(s_distinct\w*|_entropy)", "variety", "wide range", "narrow range"),
        (r"channel(s_distinct|_entropy|_changes)", "channels", "many channels", "one channel"),
        (r"(touchpoint|stage)(s_distinct|_entropy|_changes)", "touchpoints", "varied touchpoints", "few touchpoints"),
        (r"bad_answers\w*|bad_share", "satisfaction", "dissatisfied", "satisfied"),
        (
            r"satisfaction_(step|slope|last3_less_mean)",
            "satisfaction trend",
            "satisfaction rising",
            "satisfaction falling",
        ),
        (r"satisfaction_(std|before_last)", "", "", ""),
        (r"satisfaction_\w+", "satisfaction", "satisfied", "dissatisfied"),
        (r"answers_\w+|answer_recency_days", "", "", ""),
        (r"night_share", "hours", "active at night", ""),
        (r"morning_share", "hours", "active in mornings", ""),
        (r"afternoon_share", "hours", "active in afternoons", ""),
        (r"evening_share", "hours", "active in evenings", ""),
        (r"weekend_share", "days", "active at weekends", "active on weekdays"),
        (r"stage_days", "stuck", "long in one stage", "new stage recently"),
        (r"work_open|work_waiting|work_oldest\w*|work_waited\w*", "work", "open work", "no open work"),
    )
)
# A log's own word: `column.word.what`, `column.a.then_b`, or a yes-or-no column `first_column=word`.
OF_A_WORD = re.compile(rf"({'|'.join(WORDS_OF_THE_LOG)})\.(.+)\.(count|value|recency_days|recent_share|first_days)\w*")
FIRST_OR_LAST = re.compile(rf"(first|last)_({'|'.join(WORDS_OF_THE_LOG)})=(.+)")


def segment_names(
    effects: pd.DataFrame,
    ids: Sequence[str],
    previous: Mapping[str, str] | None = None,
    *,
    anew: Collection[str] = (),
) -> dict[str, str]:
    """A name for each segment; unique, at most 40 characters.

    Args:
        effects: rows `segment_id, feature, effect` and, where known, `in_segment` (the median), strongest first within
            a segment, as `segment_effects` gives them.
        ids: the segments; the first ones have the first choice.
        previous: id -> name of an earlier fit; these stay.
        anew: ids that get a new name all the same.

    Returns:
        id -> name, in the order of `ids`.
    """
    names = {id: name for id, name in (previous or {}).items() if id not in anew}
    used = {name.casefold() for name in names.values()}  # also of vanished segments: no other segment inherits a name
    for id in ids:
        if id not in names:
            names[id] = _unused(_parts(effects[effects["segment_id"] == id]), used)
            used.add(names[id].casefold())
    return {id: names[id] for id in ids}


def name_segments(
    segments: Sequence[Segment],
    effects: pd.DataFrame,
    previous: Mapping[str, str] | None = None,
    *,
    anew: Collection[str] = (),
) -> tuple[Segment, ...]:
    """The segments with generated names, and the strongest effects as their words.

    Args:
        segments: clusters; their ids stay.
        effects: of `segment_effects`, with `words`.
        previous: id -> name of an earlier fit; these stay.
        anew: ids that get a new name all the same.
    """
    names = segment_names(effects, [segment.id for segment in segments], previous, anew=anew)
    words = {str(id): "; ".join(rows["words"].head(MOST_PARTS)) for id, rows in effects.groupby("segment_id")}
    return tuple(Segment(s.id, names[s.id], words.get(s.id, NO_WORDS) + ".") for s in segments)


def phrase_of(feature: str, effect: float, median: float = math.nan) -> tuple[str, str] | None:
    """(subject, words) for a feature that is high or low; None where it gives no words.

    Args:
        feature: its name.
        effect: above 0 for high, below for low.
        median: of the segment, where known.

    >>> phrase_of("channel.app.count_30d", 0.4)
    ('channel app', 'app often')
    >>> phrase_of("touchpoint.support_call.recency_days", 0.4)
    ('touchpoint support call', 'no recent support call')
    """
    if first := FIRST_OR_LAST.fullmatch(feature):
        when, _, word = first.groups()
        clean = _word(word)
        verb = "starts" if when == "first" else "ends"
        return (f"{when} touch", f"{verb} with {clean}") if clean and effect > 0 else None
    if match := OF_A_WORD.fullmatch(feature):
        column, word, measure = match.groups()
        return _phrase_of_a_word(column, word, measure, high=effect > 0)
    for pattern, phrase in PHRASES:
        if pattern.fullmatch(feature):
            words = phrase.high if effect > 0 else phrase.low
            return (phrase.subject, words.format(days=_days(median))) if words else None
    return None


def _phrase_of_a_word(column: str, word: str, measure: str, high: bool) -> tuple[str, str] | None:
    clean = _word(word)
    if not clean or measure == "first_days":
        return None
    if measure == "recency_days":
        return f"{column} {clean}", f"no recent {clean}" if high else f"recent {clean}"
    if measure == "recent_share":
        return f"{column} {clean}", f"{'more' if high else 'less'} {clean} recently"
    if measure == "value":  # a low sum can be negative: more was returned, not less bought
        return ("value", "high value") if high else None
    return f"{column} {clean}", f"{clean} often" if high else f"{clean} rarely"


def _days(median: float) -> str:
    days = round(median) if math.isfinite(median) else 0
    return "long" if days < 1 else f"{days:,} day{'s' * (days > 1)}"


def _word(word: str) -> str:
    """A log's own word as people write it; empty where it could identify a person, or says nothing."""
    clean = re.sub(r"[^\w&+-]+|_+", " ", word).strip().lower()
    clean = re.sub(r"^\w (?=\w\w)", "", clean)  # the prefix of a coded name, as in A_ACCEPTED
    dull = clean in ("other", "missing") or PERSONAL.search(word)
    return "" if dull or len(clean) > LONGEST_WORD else clean


def _parts(effects: pd.DataFrame) -> list[str]:
    """Words of a segment's effects, strongest first, one a subject."""
    phrases: dict[str, str] = {}
    medians = effects["in_segment"] if "in_segment" in effects else [math.nan] * len(effects)
    for feature, effect, median in zip(effects["feature"], effects["effect"], medians, strict=True):
        subject, words = phrase_of(str(feature), float(effect), float(median)) or ("", "")
        if words and subject not in phrases and words not in phrases.values():
            phrases[subject] = words
    return list(phrases.values())


def _unused(parts: list[str], used: Collection[str]) -> str:
    """The first unused name that fits: two parts before three or one, stronger before weaker, then with a number."""
    candidates = [name for name in _candidates(parts) if len(name) <= LONGEST] or [NO_WORDS]
    stem = candidates[0]
    numbered = (f"{stem[: LONGEST - 1 - len(str(number))].rstrip(', ')} {number}" for number in count(2))
    return next(name for name in chain(candidates, numbered) if name.casefold() not in used)


def _candidates(parts: list[str]) -> Iterable[str]:
    for size in (2, MOST_PARTS, 1):
        for chosen in combinations(parts, size):
            name = ", ".join(chosen)
            yield name[:1].upper() + name[1:]
