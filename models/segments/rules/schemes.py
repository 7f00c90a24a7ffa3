"""Built-in schemes: they learn thresholds and names from training, and then are rules.

    segments = scheme("rfm").fit(train)
    segments.segments[0]                # Segment(id="rfm:champions", name="Champions", words="last bought at most …")
    segments.assign(snapshots)

    [segments.schemes]                  # the meaning of touchpoints: models.segments.rules.scheme_settings
    purchases = ["order", "renewal"]

A scheme for which the log lacks a column says so in one sentence. Learnt schemes are saved as rules
(`models.segments.rules.rule_segments`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Self

from features.errors import ConfigError, DataError, unknown_name
from features.journeys.journeys import Snapshots
from models.segments.rules.rule_segments import RuleSegments
from models.segments.rules.scheme_settings import SchemeRules, SchemeSettings, TrainingView
from models.segments.rules.schemes_journey import needs, objections, stage
from models.segments.rules.schemes_taste import channel, geography, interests, profile
from models.segments.rules.schemes_value import engagement, habits, rfm, value

SCHEMES: dict[str, Callable[[TrainingView], SchemeRules]] = {
    "rfm": rfm,
    "value": value,
    "stage": stage,
    "engagement": engagement,
    "needs": needs,
    "objections": objections,
    "interests": interests,
    "habits": habits,
    "channel": channel,
    "geography": geography,
    "profile": profile,
}


class SchemeSegments(RuleSegments):
    """A built-in scheme: `fit` learns its rules, the rest is `RuleSegments`.

    Args:
        scheme: a key of `SCHEMES`.
        settings: the meaning of touchpoints and columns.
    """

    settings = SchemeSettings()

    def __init__(self, scheme: str, settings: SchemeSettings | None = None) -> None:
        super().__init__(scheme=_check_name(scheme))
        self.settings = settings or SchemeSettings()

    def fit(self, snapshots: Snapshots) -> Self:
        """Learn the rules from training snapshots.

        Raises:
            DataError: one sentence on what the log lacks for this scheme.
        """
        if not (snapshots.stop > snapshots.start).any():
            raise DataError(f"{self.scheme}: no event lies before any training cutoff; check cutoffs")
        learnt = SCHEMES[self.scheme](TrainingView(snapshots, self.settings))
        self.rules, self.rest, self.rest_words = learnt.rules, learnt.rest, learnt.rest_words
        self.disjoint = learnt.disjoint
        super().fit(snapshots)
        self.notes_ = learnt.notes
        return self


def scheme(name: str, settings: SchemeSettings | None = None) -> SchemeSegments:
    """A built-in scheme, to be fitted.

    Raises:
        ConfigError: no such scheme.
    """
    return SchemeSegments(name, settings)


def fit_schemes(
    names: Iterable[str], snapshots: Snapshots, settings: SchemeSettings | None = None
) -> tuple[dict[str, SchemeSegments], tuple[str, ...]]:
    """Fit several schemes; those for which the log lacks something are left out, with a sentence each."""
    fitted: dict[str, SchemeSegments] = {}
    notes: list[str] = []
    for name in names:
        try:
            fitted[name] = scheme(name, settings).fit(snapshots)
            notes += fitted[name].notes_
        except DataError as error:
            notes.append(str(error))
    return fitted, tuple(notes)


def _check_name(name: str) -> str:
    if name not in SCHEMES:
        raise ConfigError(unknown_name("built-in scheme", name, SCHEMES))
    return name
