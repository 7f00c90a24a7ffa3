"""The canonical event row: which columns there are, and of what kind."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

REQUIRED = ("customer_id", "timestamp", "touchpoint")
OPTIONAL_CATEGORIES = ("channel", "stage", "item")
OPTIONAL_NUMBERS = ("value", "duration_s", "satisfaction")
CATEGORIES = ("touchpoint", *OPTIONAL_CATEGORIES)
CANONICAL = (*REQUIRED, *OPTIONAL_CATEGORIES, *OPTIONAL_NUMBERS)


@dataclass(frozen=True)
class EventSchema:
    """The columns that a log has beyond the canonical ones.

    Attributes:
        properties: categorical, one value an event: who handled it, which campaign it belongs to.
        profile: categorical, one value a customer: country, plan, segment of a CRM. It rides on the event
            rows and a snapshot sees the last value known strictly before its cutoff.
        profile_numeric: the same for numbers: age, number of employees, amount requested.
    """

    properties: tuple[str, ...] = ()
    profile: tuple[str, ...] = ()
    profile_numeric: tuple[str, ...] = ()

    @property
    def category_columns(self) -> tuple[str, ...]:
        """Every categorical column that an event may carry, `touchpoint` first."""
        return (*CATEGORIES, *self.properties, *self.profile)

    @property
    def number_columns(self) -> tuple[str, ...]:
        """Every numeric column that an event may carry."""
        return (*OPTIONAL_NUMBERS, *self.profile_numeric)

    def to_dict(self) -> dict[str, Any]:
        """The schema as JSON-ready data."""
        return {name: list(columns) for name, columns in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EventSchema:
        """The inverse of `to_dict`."""
        return cls(**{name: tuple(columns) for name, columns in data.items()})
