"""What users write in an experiment file: pydantic models that refuse unknown keys and name the right one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from features.errors import nearest

TAGS = {
    "cutoffs": ("dates", "ages", "counted"),
    "train": ("range", "list"),
    "test": ("range", "list"),
}


class Section(BaseModel):
    """A table of an experiment file. Frozen; an unknown key is an error that suggests the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    raise ValueError(unknown_key(str(key), cls.model_fields))
        return data


def unknown_key(key: str, keys: Iterable[str]) -> str:
    """The message for a key that a table does not have.

    >>> unknown_key("horizon_day", ["horizon_days", "kind"])
    "unknown key 'horizon_day'; did you mean 'horizon_days'? Known keys: horizon_days, kind"
    """
    names = list(keys)
    close = nearest(key, names)
    hint = f"; did you mean '{close}'?" if close else "."
    return f"unknown key '{key}'{hint} Known keys: {', '.join(names)}"


def explain(error: ValidationError) -> str:
    """A pydantic error as lines for a person: the dotted key, what is wrong, and the value where it is short."""
    return "\n".join(_explain_problem(problem) for problem in error.errors(include_url=False))


def _explain_problem(problem: Any) -> str:
    where = ".".join(_keys(problem["loc"]))
    text = str(problem["msg"]).removeprefix("Value error, ")
    value = repr(problem["input"])
    if problem["type"] == "literal_error" and isinstance(problem["input"], str):
        close = nearest(problem["input"], re.findall(r"'([^']*)'", str(problem["ctx"]["expected"])))
        text += f"; did you mean '{close}'?" if close else ""
    suffix = "" if problem["type"] in ("value_error", "missing") or len(value) > 60 else f" (it is {value})"
    return f"  {where or 'the file'}: {text[:1].lower() + text[1:]}{suffix}"


def _keys(loc: tuple[int | str, ...]) -> list[str]:
    """The keys as the user wrote them; pydantic adds the tag of a union's branch after its key."""
    return [str(key) for before, key in zip(("", *loc), loc, strict=False) if key not in TAGS.get(str(before), ())]
