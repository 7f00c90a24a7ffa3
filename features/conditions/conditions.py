"""Conditions that a marketer writes in an experiment file: pure functions of snapshots, read back in words.

    when = { all = [{ events = ["complaint", "help_*"], within_days = 60 }, { last = ["*"], more_than_days = 14 }] }

    condition = read_condition({"events": ["complaint"], "within_days": 60, "at_least": 2})
    condition = condition.fit(SnapshotView(train))  # "the top 20 %" becomes a threshold
    condition.holds(SnapshotView(snapshots))        # (n,) bool
    condition.words()                               # "at least 2 events 'complaint' in the last 60 days"

| key | what is compared | with it |
|---|---|---|
| `all`, `any`, `not` | other conditions, nested as one likes | |
| `events` | how many events; at least 1 where no number is given | `channels`, `stages`, `items`, `value_at_least` … |
| `days_with` | on how many days (UTC) there was such an event | the same |
| `sum`, `mean`, `lowest`, `highest`, `latest` | of a numeric column | the same |
| `per_day` | its sum for each day with such an event | the same |
| `last`, `first` | days since the last or first such event | `more_than_days` …, `not_followed_by`, `or_never` |
| `gap` | mean days between days with such an event | |
| `overdue` | days since the last such event, in units of the customer's own gap | `usual_days` |
| `share` | share of these events in those of `of` | `of` |
| `ratio` | one figure over another: `ratio = [{ sum = "value", within_days = 30 }, { sum = "value" }]` | |
| `score` | quantile scores 1 to 5 of one or more figures, their mean | `quantiles` |
| `feature` | a tabular feature by name | |
| `profile` | the last known value of a column | `equals`, `one_of`, `unknown` |
| `dominant` | the value of a column that stands out among the events | `equals`, `min_share`, `min_lift` |

Numbers are compared by `at_least`, `at_most`, `more_than`, `less_than`, `exactly`, or `top_share` and `bottom_share`:
the share of customers with the highest or lowest figure, whose threshold is learnt once. An unknown figure (days since
the last complaint of a customer who never complained) satisfies no comparison. Only events before the cutoff count.
"""

from __future__ import annotations

from typing import Any

import features.conditions.event_kinds
import features.conditions.kinds  # noqa: F401  # both register their kinds
from features.conditions.base import Condition, When, parse
from features.conditions.comparison import MeasureCondition, read_measure
from features.errors import ConfigError

__all__ = ["Condition", "MeasureCondition", "When", "read_condition", "read_measure"]


def read_condition(data: Any) -> Condition:
    """A condition from a TOML table.

    Raises:
        ConfigError: one sentence that names what is wrong and, for a misspelt key, the right one.
    """
    try:
        return parse(data)
    except ValueError as error:
        raise ConfigError(str(error)) from error
