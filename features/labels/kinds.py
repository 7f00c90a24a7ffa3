"""The kinds of task there are: the one place that lists them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import PlainValidator, SerializeAsAny

from features.errors import unknown_name
from features.labels.churn import ChurnTask
from features.labels.conversion import ConversionTask
from features.labels.label_table import LabelTableTask
from features.labels.task import Task

KINDS: dict[str, type[Task]] = {"churn": ChurnTask, "conversion": ConversionTask, "labels": LabelTableTask}


def read_task(value: Any) -> Task:
    """A task from the `[task]` table of an experiment file.

    Raises:
        ValueError: no table, or no kind that there is.
        ValidationError: settings that the kind refuses.
    """
    if isinstance(value, Task):
        return value
    if not isinstance(value, dict):
        raise ValueError("write a table, [task]")
    kind = str(value.get("kind", ""))
    if not kind:
        raise ValueError(f"kind is missing. There are: {', '.join(KINDS)}")
    if kind not in KINDS:
        raise ValueError(unknown_name("kind", kind, KINDS))
    return KINDS[kind].model_validate(value)


AnyTask = Annotated[SerializeAsAny[Task], PlainValidator(read_task)]
