"""What to compute: the `[features]` table of an experiment file."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from features.errors import unknown_name
from features.tabular.catalogue import ALL_GROUPS
from features.tabular.group import Widths

FALLBACK_WINDOWS_DAYS = (7.0, 30.0, 90.0)  # where the training snapshots suggest none


class TabularSettings(BaseModel):
    """What to compute. Every field can be set in an experiment's `[features]`.

    Attributes:
        windows_days: nested windows that end at the cutoff; one over all time is added. None chooses some that suit how
            far back the training snapshots look and how recent their events are.
        value_windows_days: those of them that sums of value by touchpoint, channel, stage and item are taken in.
        trend_window_days: the window that a touchpoint's recent share is taken in; must be one of the windows.
        groups: which groups of features.
        top_touchpoints: how many touchpoints get columns of their own, by frequency; the rest share `other`.
        top_channels: the same for channels.
        top_stages: the same for stages.
        top_items: the same for items.
        top_property_values: how many values of a property have a code of their own.
        top_profile_values: how many values of a profile column have a code of their own.
        min_count: values with fewer training events go to `other`.
        session_gap_s: a longer pause starts a new visit.
        last_touchpoints: how many of the last touchpoints are given.
        order_pairs: how many touchpoints have times between each other and transitions.
        stage_pairs: how many stages have times between each other.
        property_touchpoints: for how many touchpoints a property's value at their last occurrence is given.
        property_shares: for how many values of a property their share is given.
        max_units: how many units of work (touchpoints that start and complete) are followed.
        bad_satisfaction: satisfaction of at most this is bad; None learns the lower quartile.
        properties: extra categorical columns that change from event to event; None decides by the data.
        profile: extra categorical columns of the customer; None decides by the data.
        drop_redundant: leave out columns that are constant in training or equal to an earlier one.
        check_rows: how many training rows, evenly spread, decide what is redundant.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    windows_days: tuple[float, ...] | None = None
    value_windows_days: tuple[float, ...] | None = None
    trend_window_days: float | None = None
    groups: tuple[str, ...] = ALL_GROUPS
    top_touchpoints: int = Field(default=20, ge=1, le=500)
    top_channels: int = Field(default=8, ge=1, le=500)
    top_stages: int = Field(default=8, ge=1, le=500)
    top_items: int = Field(default=10, ge=1, le=500)
    top_property_values: int = Field(default=50, ge=1, le=500)
    top_profile_values: int = Field(default=50, ge=1, le=500)
    min_count: int = Field(default=20, ge=1)
    session_gap_s: float = Field(default=1800, gt=0)
    last_touchpoints: int = Field(default=3, ge=1, le=20)
    order_pairs: int = Field(default=6, ge=0, le=30)
    stage_pairs: int = Field(default=6, ge=0, le=30)
    property_touchpoints: int = Field(default=12, ge=0, le=100)
    property_shares: int = Field(default=10, ge=0, le=100)
    max_units: int = Field(default=12, ge=0, le=100)
    bad_satisfaction: float | None = None
    properties: tuple[str, ...] | None = None
    profile: tuple[str, ...] | None = None
    drop_redundant: bool = True
    check_rows: int = Field(20_000, ge=2)

    @field_validator("groups")
    @classmethod
    def _check_groups(cls, groups: tuple[str, ...]) -> tuple[str, ...]:
        for group in groups:
            if group not in ALL_GROUPS:
                raise ValueError(unknown_name("feature group", group, ALL_GROUPS))
        return tuple(group for group in ALL_GROUPS if group in groups)

    @model_validator(mode="after")
    def _check_windows(self) -> Self:
        windows = self.windows_days
        if windows is None:
            if self.value_windows_days or self.trend_window_days:
                raise ValueError("value_windows_days and trend_window_days are some of windows_days: give those, too")
            return self
        if not windows or min(windows) <= 0 or list(windows) != sorted(set(windows)):
            raise ValueError(f"windows_days must be positive and ascending, not {windows}")
        if not set(self.value_windows_days or ()) <= set(windows):
            raise ValueError(
                f"value_windows_days must be some of windows_days {windows}, not {self.value_windows_days}"
            )
        if self.trend_window_days is not None and self.trend_window_days not in windows:
            raise ValueError(f"trend_window_days must be one of windows_days {windows}")
        return self

    def vocabulary_sizes(self) -> dict[str, int]:
        """How many values of touchpoint, channel, stage and item have codes of their own."""
        return {
            "touchpoint": self.top_touchpoints,
            "channel": self.top_channels,
            "stage": self.top_stages,
            "item": self.top_items,
        }

    def widths(self) -> Widths:
        """The settings that decide how many features there are, with defaults for those that are None."""
        windows = self.windows_days or FALLBACK_WINDOWS_DAYS
        middle = tuple(dict.fromkeys((windows[min(1, len(windows) - 1)], windows[-2 if len(windows) > 1 else -1])))
        return Widths(
            windows_days=windows,
            value_windows_days=middle if self.value_windows_days is None else self.value_windows_days,
            trend_window_days=self.trend_window_days or windows[min(1, len(windows) - 1)],
            order_pairs=self.order_pairs,
            stage_pairs=self.stage_pairs,
            last_touchpoints=self.last_touchpoints,
            property_touchpoints=self.property_touchpoints,
            property_shares=self.property_shares,
        )
