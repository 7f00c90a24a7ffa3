"""What the reviewer is shown beside the figures: the `[report]` table of an experiment file."""

from __future__ import annotations

from features.settings import Section


class Report(Section):
    """What runs report; nothing here changes a model.

    Attributes:
        fairness: columns that describe customers (`profile`, `profile_numeric`, or any the log has): the model card and
            `fairness.csv` show each model apart by their values.
    """

    fairness: tuple[str, ...] = ()
