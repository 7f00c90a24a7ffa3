"""The `[report]` table of an experiment file: what a reviewer sees beside the metrics."""

from __future__ import annotations

from features.settings import Section


class Report(Section):
    """Contents of reports; nothing here changes a model.

    Attributes:
        fairness: columns that describe customers (`profile`, `profile_numeric`, or any of the log's): the model card
            and `fairness.csv` show each model by their values.
    """

    fairness: tuple[str, ...] = ()
