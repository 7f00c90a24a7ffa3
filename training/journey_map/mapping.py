"""From an event log or an experiment file to the journey map's page: what `journeylab map` does.

    make_map(map_plan(Path("log.csv"), ["events.columns.customer_id=client"]), Path("map.html"))

With an experiment file, or when asked, the page, the tables and the pictures become a run of role "map" in MLflow.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import ValidationError
from rich.console import Console

from features.errors import ConfigError, missing_path, nearest
from features.events.files import columns_of
from features.events.schema import CANONICAL
from features.events.source import EventSource
from features.journey_map.comparison import MapComparison
from features.journey_map.distributed import select_customers
from features.journey_map.selection import unmatched
from features.journey_map.settings import MapSettings
from features.journey_map.tables import JourneyMap, build_map
from features.journeys.landed import is_landed
from features.settings import Section, explain
from training.config.engines import AUTOMATIC, Engine
from training.config.experiment import SLUG, Experiment, load_experiment, put
from training.data.open_log import open_event_log
from training.journey_map.groups import compared, read_date
from training.journey_map.page import MapText, write_map_page
from training.progress import say, stage

if TYPE_CHECKING:
    from training.tracking.tracking import Tracker

EXPERIMENT = ".toml"


class MapPlan(Section):
    """What to draw a map of.

    Attributes:
        name: of the log or experiment, as the page calls it.
        events: where the events are and how to read them.
        map: goals, stages and the like.
        logged: whether it belongs into MLflow where nothing else is said.
    """

    name: str
    events: EventSource
    map: MapSettings = MapSettings()
    logged: bool = False


@dataclass(frozen=True)
class MapResult:
    """What came of it.

    Attributes:
        page: the HTML file.
        run_id: of the MLflow run, "" where nothing was logged.
        summary: the map's own.
        notes: of the map.
    """

    page: Path
    run_id: str
    summary: dict[str, Any]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class MapChoice:
    """Which part of the log, and which groups.

    Attributes:
        goals: touchpoints or patterns that count as conversion; those of the plan where there are none.
        start: events from this moment on.
        end: events before this moment.
        group: "converted", a date, or "column=value"; see `training.journey_map.groups`.
    """

    goals: tuple[str, ...] = ()
    start: str | None = None
    end: str | None = None
    group: str | None = None


def map_plan(
    source: Path, settings: Sequence[str] = (), group: str | None = None, *, elsewhere: bool = False
) -> MapPlan:
    """The plan for an experiment file, or for a log that is read as a plain table.

    Args:
        source: a `.toml` experiment file; or a CSV, TSV or Parquet file, or a folder of them.
        settings: `key=value` with a dotted key, such as `map.cohort=week` or `events.timezone=Europe/London`.
        group: "column=value" where a column beyond the canonical ones must be read for it.
        elsewhere: the log may be one that only Spark can look into: a URI, a table.

    Raises:
        ConfigError: no such file, an unknown key, a value that does not fit.
    """
    if source.suffix == EXPERIMENT:
        return _of_experiment(load_experiment(source, settings))
    if not source.exists() and not elsewhere:
        raise ConfigError(f"{missing_path(source)} Name an event log (CSV, Parquet or a folder) or an experiment file.")
    data: dict[str, Any] = {"name": _name(source), "events": {"path": str(source)}}
    for setting in settings:
        put(data, setting)
    column = (group or "").partition("=")[0].strip() if "=" in (group or "") else ""
    events = data["events"]
    columns = [*CANONICAL, *(name for key in ("properties", "profile") for name in events.get(key, ()))]
    if column and column not in columns and events.get("adapter", "table") == "table":
        events["profile"] = [*events.get("profile", ()), column]
    try:
        plan = MapPlan.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"The options for {source.name}:\n{explain(error)}") from error
    if source.exists():
        _require_columns(plan.events)
    return plan


def _require_columns(events: EventSource) -> None:
    """What was mapped must be there: a log whose names are ours already would be read past a misspelt mapping."""
    if is_landed(events.path):
        return
    present = columns_of(events.path, encoding=events.encoding)
    for ours, theirs in events.columns.items():
        if theirs not in present:
            close = nearest(theirs, present)
            hint = f" Did you mean '{close}'?" if close else ""
            raise ConfigError(
                f"{events.path.name} has no column '{theirs}' to take as {ours}.{hint} It has: {', '.join(present)}"
            )


def _of_experiment(experiment: Experiment) -> MapPlan:
    """An experiment's map; a conversion task says what the goal is where the map does not."""
    settings, task = experiment.map, experiment.task
    if not settings.goals and task.conversion_goals:
        ended = settings.ended or task.conversion_ends
        settings = settings.model_copy(update={"goals": task.conversion_goals, "ended": ended})
    return MapPlan(name=experiment.name, events=experiment.events, map=settings, logged=True)


def _name(path: Path) -> str:
    return path.name.split(".")[0] or path.resolve().name or "events"


def make_map(
    plan: MapPlan,
    out: Path,
    choice: MapChoice | None = None,
    *,
    engine: Engine = AUTOMATIC,
    log: bool | None = None,
    tables: Path | None = None,
    progress: Console | None = None,
) -> MapResult:
    """Read the log, draw the map, write the page, and log it.

    Args:
        plan: what to draw.
        out: the HTML file.
        choice: dates, goals, groups.
        engine: where the log is processed.
        log: to MLflow; by default what the plan says.
        tables: a folder for the tables as CSV.
        progress: where to show what is going on.

    Raises:
        ConfigError: dates, goals or groups that do not fit; an `out` that is no HTML file.
        DataError: no event log, or none of its events is left.
    """
    choice = choice or MapChoice()
    check_page_path(out)
    start, end = date_range(choice)
    with open_event_log(plan.events, engine, out.with_name(f"{out.name}.parts"), progress) as events:
        facts = events.facts
        settings = with_goals(plan.map, choice.goals, facts.names["touchpoint"])
        with stage(progress, f"Drawing the map of {facts.events:,} events"):
            drawn = build_map(select_customers(events, facts, start, end), settings)
            comparison = compared(events, facts, settings, choice.group, start, end) if choice.group else None
        events.quarantine(out.with_name(f"{out.stem}_quarantine.csv"))
        rejected, notes = events.rejected, events.notes
    return publish(plan, out, choice, drawn, comparison, rejected, notes, log, tables, progress)


def publish(
    plan: MapPlan,
    out: Path,
    choice: MapChoice,
    drawn: JourneyMap,
    comparison: MapComparison | None,
    counts: dict[str, int],
    notes: tuple[str, ...],
    log: bool | None,
    tables: Path | None,
    progress: Console | None,
) -> MapResult:
    """Write the page of a map, and log it.

    Args:
        plan: what was drawn.
        out: the HTML file.
        choice: dates, goals, groups.
        drawn: the map.
        comparison: of the groups.
        counts: reason → rejected rows.
        notes: on reading the log.
        log: to MLflow; by default what the plan says.
        tables: a folder for the tables as CSV.
        progress: where to show what is going on.
    """
    settings = drawn.settings
    text = MapText(plan.name, plan.events.path.name, settings.goals, settings.cohort, _rejected_notes(counts, notes))
    write_map_page(drawn, out, text, comparison)
    if tables is not None:
        write_tables(drawn, tables, comparison)
    run_id = ""
    if plan.logged if log is None else log:
        with stage(progress, "Logging to MLflow"):
            run_id = log_map(_tracker(plan.name), drawn, out, choice, comparison)
    for note in (*notes, *drawn.notes):
        say(progress, f"  {note}")
    return MapResult(out, run_id, drawn.summary, drawn.notes)


def check_page_path(out: Path) -> None:
    """Raise a `ConfigError` unless it is a page."""
    if out.suffix not in (".html", ".htm"):
        raise ConfigError(f"Cannot write {out}: a map is a page, name a file that ends in .html.")


def date_range(choice: MapChoice) -> tuple[pd.Timestamp | None, pd.Timestamp | None]:
    """The two dates.

    Raises:
        ConfigError: no dates, or the later one first.
    """
    start, end = (_moment(name, text) for name, text in (("--start", choice.start), ("--end", choice.end)))
    if start is not None and end is not None and start >= end:
        raise ConfigError(f"--start {choice.start} is not before --end {choice.end}: no event lies in between.")
    return start, end


def _moment(option: str, text: str | None) -> pd.Timestamp | None:
    problem = f"{option} {text} is no date: write it as 2024-01-31 or 2024-01-31T12:00."
    return None if text is None else read_date(text, problem)


def with_goals(settings: MapSettings, goals: tuple[str, ...], names: tuple[str, ...]) -> MapSettings:
    """The settings with the goals that were asked for, each of which must occur.

    Raises:
        ConfigError: a goal that no touchpoint fits.
    """
    if not goals:
        return settings
    if missing := unmatched(names, goals, "a goal"):
        examples = ", ".join(sorted(names)[:12]) + (", …" if len(names) > 12 else "")
        raise ConfigError(f"{missing[0]} The touchpoints are: {examples}")
    return settings.model_copy(update={"goals": goals})


def _rejected_notes(counts: dict[str, int], notes: tuple[str, ...]) -> tuple[str, ...]:
    return (*(f"{number:,} rows were rejected: {reason}." for reason, number in counts.items()), *notes)


def write_tables(drawn: JourneyMap, folder: Path, comparison: MapComparison | None = None) -> None:
    """Every table that has rows as CSV, those of a comparison with `comparison_` before their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in drawn.tables.items():
        if len(frame):
            frame.to_csv(folder / f"{name}.csv", index=name == "step_matrix")
    for name in ("funnel", "touchpoints", "transitions") if comparison is not None else ():
        getattr(comparison, name).to_csv(folder / f"comparison_{name}.csv", index=False)


def _tracker(name: str) -> Tracker:
    from training.tracking.tracking import Tracker  # MLflow is slow to import, and most maps are not logged

    return Tracker(name if SLUG.fullmatch(name) else _slug(name))


def _slug(name: str) -> str:
    return f"map_{re.sub(r'[^a-z0-9]+', '_', name.lower()).strip('_')}"[:60].rstrip("_")


def log_map(
    tracker: Tracker, drawn: JourneyMap, page: Path, choice: MapChoice, comparison: MapComparison | None = None
) -> str:
    """A run of role "map" with page, tables and pictures.

    Returns:
        Its id.
    """
    from training.journey_map.pictures import draw_map  # matplotlib is needed for a run in MLflow only

    summary = drawn.summary
    numbers = {name: float(value) for name, value in summary.items() if isinstance(value, int | float)}
    inputs = {"map": drawn.settings.model_dump(mode="json"), "choice": vars(choice)}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_tables(drawn, root / "tables", comparison)
        draw_map(drawn, root / "pictures", drawn.settings.cohort)
        (root / "map.html").write_bytes(page.read_bytes())
        note = "The journey map: open `map.html` under Artifacts; tables as CSV and pictures lie beside it."
        return tracker.log_artifacts_run("journey map", "map", numbers, inputs, root, note)
