"""Short names for found segments, made from what sets them apart: "High value, frequent", "New, one visit only".

Names say what kind of behaviour, in words of this file; of the log's own words they take touchpoints, channels and
stages alone. Items, profile columns and other properties can say who somebody is and never get into a name.

>>> effects = pd.DataFrame({"segment_id": ["s01", "s01"], "feature": ["recency_days", "value_all"],
...                         "effect": [0.9, -0.5]})
>>> segment_names(effects, ["s01"])
{'s01': 'Silent since long, low value'}
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from models.segments.contract import Segment

LONGEST = 40  # characters
LONGEST_WORD = 18  # of a log's own word
MOST_PARTS = 3
NO_WORDS = "Much like the rest"
WORDS_OF_THE_LOG = ("touchpoint", "channel", "stage")
PERSONAL = re.compile(r"[@\d]")  # addresses, numbers of persons or orders


@dataclass(frozen=True)
class Phrase:
    """What high and low values of a kind of feature are called.

    Attributes:
        subject: features of one subject give one part of a name.
        high: the words for more than the rest; empty: say nothing.
        low: for less.
    """

    subject: str
    high: str
    low: str


# The first pattern that fits a feature's whole name decides; features that none fits give no words.
PHRASES = tuple(
    (re.compile(pattern), Phrase(*words))
    for pattern, *words in (
        (r"recency_days|gap_current|day_gap_current", "recency", "silent since long", "active lately"),
        (r"(day_)?gap_current_(to_.*|z)|(day_)?gap_share_longer", "overdue", "overdue", "on time"),
        (r"events_share_second_half", "", "", ""),  # of one visit only, all comes in the first half
        (r"value_share_.*|value_change_.*|events_share_.*|events_growth_.*", "trend", "on the rise", "fading"),
        (r"value_\w+|valued_events", "value", "high value", "low value"),
        (r"basket_(last_to_mean|slope)", "basket trend", "growing baskets", "shrinking baskets"),
        (r"basket_min", "", "", ""),  # negative where something was given back
        (r"basket_std", "basket spread", "uneven baskets", "even baskets"),
        (r"basket_\w+", "basket", "big baskets", "small baskets"),
        (r"(day_)?gap_(std|variation)", "rhythm", "irregular", "regular"),
        (r"(day_)?gap_\w+", "pace", "long pauses", "short pauses"),
        (r"bounce_share", "depth", "single-event visits", "long visits"),
        (r"visit_(seconds|events)_\w+", "depth", "long visits", "short visits"),
        (r"duration_s_\w+", "depth", "stays long", "stays briefly"),
        (r"events_per_\w+|active_days_share|active_months_share", "density", "dense activity", "sparse activity"),
        (r"visits\w*|events_\w+|active_\w+|longest_streak_days", "frequency", "frequent", "seldom here"),
        (r"tenure_days", "tenure", "long-standing", "new"),
        (r"span_days", "span", "long history", "short history"),
        (r"return_recency_days", "", "", ""),
        (r"return(s|ed)_\w+", "returns", "many returns", "few returns"),
        (r"items_new\w*|item_new\w*", "novelty", "tries new items", "few new items"),
        (r"item_repeat\w*|items_repeated\w*", "repeats", "buys again", "no repeats"),
        (r"item_top_share", "variety", "one favourite", "wide range"),
        (r"items_distinct_per_line", "repeats", "no repeats", "buys again"),
        (r"item(s_distinct\w*|_entropy)", "variety", "wide range", "narrow range"),
        (r"channel(s_distinct|_entropy|_changes)", "channels", "many channels", "one channel"),
        (r"(touchpoint|stage)(s_distinct|_entropy|_changes)", "touchpoints", "many-sided", "one-sided"),
        (r"bad_answers\w*|bad_share", "satisfaction", "dissatisfied", "satisfied"),
        (r"satisfaction_(step|slope|last3_less_mean)", "satisfaction trend", "happier lately", "less happy lately"),
        (r"satisfaction_(std|before_last)", "", "", ""),
        (r"satisfaction_\w+", "satisfaction", "satisfied", "dissatisfied"),
        (r"answers_\w+|answer_recency_days", "", "", ""),
        (r"night_share", "hours", "by night", ""),
        (r"morning_share", "hours", "in the morning", ""),
        (r"afternoon_share", "hours", "in the afternoon", ""),
        (r"evening_share", "hours", "in the evening", ""),
        (r"weekend_share", "days", "at weekends", "on weekdays"),
        (r"stage_days", "stuck", "long in their stage", "just moved on"),
        (r"work_open|work_waiting|work_oldest\w*|work_waited\w*", "work", "work waiting", "nothing waiting"),
    )
)
# A log's own word: `column.word.what`, `column.a.then_b`, or a yes-or-no column `first_column=word`.
OF_A_WORD = re.compile(rf"({'|'.join(WORDS_OF_THE_LOG)})\.(.+)\.(count|value|recency_days|recent_share|first_days)\w*")
FIRST_OR_LAST = re.compile(rf"(first|last)_({'|'.join(WORDS_OF_THE_LOG)})=(.+)")


def segment_names(
    effects: pd.DataFrame,
    ids: Sequence[str],
    kept: Mapping[str, str] | None = None,
    *,
    anew: Collection[str] = (),
) -> dict[str, str]:
    """A name for each segment; unique, at most 40 characters.

    Args:
        effects: rows `segment_id, feature, effect`, strongest first within a segment, as `segment_effects` gives them.
        ids: the segments, in the order in which they may choose.
        kept: id -> name of an earlier fit; these stay.
        anew: ids that are to be named again all the same.

    Returns:
        id -> name, in the order of `ids`.
    """
    old = {i: name for i, name in (kept or {}).items() if i not in anew}
    taken = {name.casefold() for name in old.values()}  # also of segments that are gone: nobody inherits a name
    names = {}
    for i in ids:
        names[i] = old[i] if i in old else _free(_parts(effects[effects["segment_id"] == i]), taken)
        taken.add(names[i].casefold())
    return names


def name_segments(
    segments: Sequence[Segment],
    effects: pd.DataFrame,
    kept: Mapping[str, str] | None = None,
    *,
    anew: Collection[str] = (),
) -> tuple[Segment, ...]:
    """The segments with generated names and a sentence of the strongest effects.

    Args:
        segments: found ones; their ids stay.
        effects: of `segment_effects`, with `words`.
        kept: id -> name of an earlier fit; these stay.
        anew: ids that are to be named again all the same.
    """
    names = segment_names(effects, [segment.id for segment in segments], kept, anew=anew)
    told = {str(i): "; ".join(some["words"].head(MOST_PARTS)) for i, some in effects.groupby("segment_id")}
    return tuple(Segment(s.id, names[s.id], told[s.id] + "." if s.id in told else NO_WORDS + ".") for s in segments)


def phrase_of(feature: str, effect: float) -> tuple[str, str] | None:
    """(subject, words) for a feature that is high or low; None where it gives no words.

    >>> phrase_of("channel.app.count_30d", 0.4)
    ('channel app', 'app often')
    >>> phrase_of("touchpoint.support_call.recency_days", 0.4)
    ('touchpoint support call', 'no support call lately')
    """
    if first := FIRST_OR_LAST.fullmatch(feature):
        when, _, word = first.groups()
        clean = _word(word)
        return (
            (f"{when} touch", f"{'begins' if when == 'first' else 'ends'} with {clean}")
            if clean and effect > 0
            else None
        )
    if of_a_word := OF_A_WORD.fullmatch(feature):
        column, word, what = of_a_word.groups()
        return _phrase_of_a_word(column, word, what, effect > 0)
    for pattern, phrase in PHRASES:
        if pattern.fullmatch(feature):
            words = phrase.high if effect > 0 else phrase.low
            return (phrase.subject, words) if words else None
    return None


def _phrase_of_a_word(column: str, word: str, what: str, high: bool) -> tuple[str, str] | None:
    clean = _word(word)
    if not clean or what == "first_days":
        return None
    if what == "recency_days":
        return f"{column} {clean}", f"no {clean} lately" if high else f"{clean} lately"
    if what == "recent_share":
        return f"{column} {clean}", f"more {clean} lately" if high else f"less {clean} lately"
    if what == "value":  # low sums may be negative ones: then more was given back, not less bought
        return ("value", "high value") if high else None
    return f"{column} {clean}", f"{clean} often" if high else f"{clean} rarely"


def _word(word: str) -> str:
    """A log's own word as people write it; empty where it could say who somebody is, or says nothing."""
    clean = re.sub(r"[^\w&+-]+|_+", " ", word).strip().lower()
    clean = re.sub(r"^\w (?=\w\w)", "", clean)  # the prefix of a coded name, as in A_ACCEPTED
    dull = clean in ("other", "missing") or PERSONAL.search(word)
    return "" if dull or len(clean) > LONGEST_WORD else clean


def _parts(effects: pd.DataFrame) -> list[str]:
    """Words of a segment's effects, strongest first, one a subject."""
    found: dict[str, str] = {}
    for feature, effect in zip(effects["feature"], effects["effect"], strict=True):
        if (told := phrase_of(str(feature), float(effect))) and told[0] not in found and told[1] not in found.values():
            found[told[0]] = told[1]
    return list(found.values())


def _free(parts: list[str], taken: Collection[str]) -> str:
    """The first name that fits and nobody has: two parts before one or three, stronger parts before weaker ones."""
    candidates = [name for name in _candidates(parts) if len(name) <= LONGEST]
    for name in candidates:
        if name.casefold() not in taken:
            return name
    stem, number = (candidates or [NO_WORDS])[0], 2
    if stem.casefold() not in taken:
        return stem
    while (name := f"{stem[: LONGEST - 1 - len(str(number))].rstrip(', ')} {number}").casefold() in taken:
        number += 1
    return name


def _candidates(parts: list[str]) -> Iterable[str]:
    for size in (2, MOST_PARTS, 1):
        for some in combinations(parts, size):
            name = ", ".join(some)
            yield name[:1].upper() + name[1:]
