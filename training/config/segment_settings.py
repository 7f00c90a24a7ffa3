"""The `[segments]` table of an experiment file: the partitions, the main one, and the goals."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from features.errors import unknown_name
from features.settings import Section
from models.segments.clustering.clusters import ClusterSettings
from models.segments.insight.drift import DriftSettings
from models.segments.insight.targets import Goal, TargetSettings
from models.segments.lookalikes import LookalikeSettings
from models.segments.rules.rule_segments import Rule
from models.segments.rules.scheme_settings import SchemeSettings
from models.segments.rules.schemes import SCHEMES

CLUSTERS, RULES = "found", "rules"
DEFAULT_PARTITIONS = (CLUSTERS, "rfm", "value", "engagement")
SEGMENTS_SUFFIX = "_segments"  # of the registered model's name, after the experiment's


class Segments(Section):
    """Segmentations of an experiment; every key has a default.

    Attributes:
        which: partitions: "found" (clusters), built-in schemes (`models.segments.rules.schemes`), "rules" where rules
            are given.
        main: the partition that a customer's `segment` is of.
        who: the customers to fit on and describe: everyone with an event before the last training cutoff, or the
            candidates of the task at their last training cutoff; by default everyone where cutoffs are shared, else
            the candidates.
        found: how clusters are found (`models.segments.clustering.clusters`).
        schemes: which touchpoints are what for the built-in schemes (`models.segments.rules.scheme_settings`).
        rules: a marketer's own segments, the first that holds wins (`models.segments.rules.rule_segments`).
        rest: name of the segment of those for whom no rule holds; without it they are in none.
        goals: what the segments should reach (`models.segments.insight.targets`).
        targets: who counts as reachable.
        drift: when to worry (`models.segments.insight.drift`).
        lookalikes: settings of nearest customers, by the encoder that `found.encoder` describes; without the table
            none are kept.
    """

    which: tuple[str, ...] = DEFAULT_PARTITIONS
    main: str = ""
    who: Literal["auto", "everyone", "candidates"] = "auto"
    found: ClusterSettings = ClusterSettings()
    schemes: SchemeSettings = SchemeSettings()
    rules: tuple[Rule, ...] = ()
    rest: str | None = None
    goals: tuple[Goal, ...] = ()
    targets: TargetSettings = TargetSettings()
    drift: DriftSettings = DriftSettings()
    lookalikes: LookalikeSettings | None = Field(default=None)

    @field_validator("which")
    @classmethod
    def _check_partitions(cls, which: tuple[str, ...]) -> tuple[str, ...]:
        names = (CLUSTERS, RULES, *SCHEMES)
        for name in which:
            if name not in names:
                raise ValueError(unknown_name("partition", name, names))
        if not which or len(set(which)) < len(which):
            raise ValueError("name at least one partition, and each once")
        return which

    @model_validator(mode="after")
    def _check_main(self) -> Self:
        if RULES in self.which and not self.rules:
            raise ValueError("'rules' is among the partitions, but there are no [[segments.rules]]")
        if self.main and self.main not in self.partitions:
            raise ValueError(f"the main partition '{self.main}' is not among {', '.join(self.partitions)}")
        return self

    @property
    def partitions(self) -> tuple[str, ...]:
        """`which`, and "rules" where rules are given."""
        return self.which if RULES in self.which or not self.rules else (*self.which, RULES)

    @property
    def main_partition(self) -> str:
        """`main`, or the first partition."""
        return self.main or self.partitions[0]
