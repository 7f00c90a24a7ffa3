"""The page of `journeylab monitor`: alarms first, then every check, scores, days, versions, outcomes; opens offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich import box
from rich.markup import escape as escaped
from rich.table import Table

from training.journey_map.page import shell
from training.journey_map.sections import Part
from training.monitoring.checks import MonitorReport
from training.reports.html import Column, clean, count, escape, table

KINDS = {
    "feature": ("Features", "The population stability index of each watched feature, by its bins in training."),
    "score": ("Score", "The index of what the model answers, against the held-out rows of its training."),
    "missing": ("Missing columns", "How the share of journeys without any value in a column changed."),
    "touchpoint": ("Touchpoints", "How the share of journeys that have a touchpoint changed."),
    "unknown": ("Unknown touchpoints", "The share of events with a touchpoint that training did not know."),
    "volume": ("Volume", "How far the emptiest full day lies below the median day."),
    "calibration": ("Calibration", "How far the mean score lies from the share that came true."),
    "auroc": ("Rank order", "How far the AUROC fell below that of the held-out rows."),
}
CHECKED = (
    Column("name", "What", "name"), Column("state", "State", "text"), Column("value", "Value", "number"),
    Column("threshold", "Threshold", "number"), Column("chance", "Chance reaches", "number"),
    Column("words", "In words", "said"),
)  # fmt: skip
DAYS = (
    Column("day", "Day", "name"), Column("answers", "Answers"), Column("rows", "Rows"),
    Column("customers", "Customers"), Column("score", "Mean score", "number"),
    Column("unknown", "Unknown touchpoints", "share"),
)  # fmt: skip
VERSIONS = (
    Column("version", "Version", "name"), Column("state", "Judged", "text"), Column("answers", "Answers"),
    Column("rows", "Rows"), Column("first", "First", "text"), Column("last", "Last", "text"),
    Column("score", "Mean score", "number"), Column("reference", "Reference", "text"),
)  # fmt: skip
SCORES = (Column("answer", "Answer", "name"), Column("training", "Held out", "share"), Column("served", "Served",
          "share"))  # fmt: skip
OUTCOMES = (
    Column("bin", "Bin of scores", "name"), Column("rows", "Answers"), Column("score", "Mean score", "share"),
    Column("rate", "Came true", "share"),
)  # fmt: skip
SHOWN_METRICS = {"auroc": "AUROC", "average_precision": "Average precision", "brier": "Brier score",
                 "calibration_error": "Calibration error"}  # fmt: skip
BAR = 18
MOST = 60
IN_TERMINAL = 20


def write_monitor_page(report: MonitorReport, path: Path) -> Path:
    """Write the page.

    Args:
        report: what was found.
        path: of the file; its folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(monitor_page(report), encoding="utf-8")
    return path


def monitor_page(report: MonitorReport) -> str:
    """The page as text."""
    title = f"Monitor: {report.name}, version {report.version}"
    sections = [_first(report), *_checks(report), _scores(report), _days(report), _versions(report)]
    if report.outcomes is not None:
        sections.append(_outcomes(report))
    return shell(title, _header(report, title), sections)


def terminal_table(report: MonitorReport) -> Table:
    """The checks that are furthest from fine, as a table for a terminal."""
    title = f"{report.name}, version {report.version}: {report.figures['answers']:,.0f} answers"
    drawn = Table(box=box.SIMPLE_HEAD, title=title)
    for name in ("check", "of", "value", "threshold", "chance reaches", "state"):
        drawn.add_column(name, justify="right" if name in ("value", "threshold", "chance reaches") else "left")
    for row in report.checks.head(IN_TERMINAL).itertuples():
        figures = (f"{row.value:.3f}", f"{row.threshold:.3f}", f"{row.chance:.3f}")
        of = escaped(clean(row.name))
        drawn.add_row(str(row.kind), of, *figures, "[bold red]ALARM[/]" if row.alarm else "fine")
    return drawn


def _header(report: MonitorReport, title: str) -> str:
    facts = (
        ("Answers", count(report.figures["answers"])),
        ("Rows recorded", count(report.figures["rows"])),
        ("Customers", count(report.figures["customers"])),
        ("Alarms", count(len(report.alarms))),
    )
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    said = f"What was served from {_day(report.days, 0)} to {_day(report.days, -1)}, against what was trained on."
    return f'<header><h1>{escape(title)}</h1><p>{said} Times are UTC.</p><dl class="facts">{cells}</dl></header>'


def _first(report: MonitorReport) -> Part:
    alarms = [f"Alarm. {words}" for words in report.alarms] or ["No alarm: nothing is past its threshold."]
    return Part("first", "What to know first", "", _listed([*alarms, *report.notes]))


def _checks(report: MonitorReport) -> list[Part]:
    how = "A value is an alarm when it is above its threshold and above what chance reaches."
    state = report.checks["alarm"].map({True: "alarm", False: "fine"})
    checks = report.checks.assign(state=state)
    parts = []
    for kind, (title, caption) in KINDS.items():
        own = checks[checks["kind"] == kind]
        if len(own):
            parts.append(Part(kind, title, how, table(own, CHECKED, caption, most=MOST)))
    return parts


def _scores(report: MonitorReport) -> Part:
    how = "The grey bar is the share of the held-out rows of training, the other one of what is served."
    frame = report.scores
    drawn = _bars(frame["answer"].tolist(), frame["training"].tolist(), frame["served"].tolist()) if len(frame) else ""
    return Part("scores", "What was answered", how, drawn + table(frame, SCORES, "Shares of answers."))


def _days(report: MonitorReport) -> Part:
    frame = report.days.assign(day=report.days["day"].dt.strftime("%Y-%m-%d"))
    drawn = _bars(frame["day"].tolist()[-MOST:], [], _scaled(frame["answers"].tolist()[-MOST:]))
    how = "Answers a day; where more was asked than is recorded, a row stands for several."
    return Part("days", "Volume", how, drawn + table(frame, DAYS, "Days of this report."))


def _versions(report: MonitorReport) -> Part:
    state = report.versions["judged"].map({True: "yes", False: "no"})
    stamps = {name: report.versions[name].dt.strftime("%Y-%m-%d %H:%M") for name in ("first", "last")}
    frame = report.versions.assign(state=state, **stamps)
    how = "Rows are judged where their bins are those of this version's training."
    return Part("versions", "Versions", how, table(frame, VERSIONS, "Versions of this champion among the rows."))


def _outcomes(report: MonitorReport) -> Part:
    found = report.outcomes
    assert found is not None
    told = [f"{count(found.labelled)} answers have a label, {count(found.positives)} of them came true."]
    for name, title in SHOWN_METRICS.items():
        if name in found.figures:
            value, low, high = (found.figures[f"{name}{end}"] for end in ("", "_low", "_high"))
            told.append(f"{title}: {value:.3f} ({low:.3f} to {high:.3f}).")
    bins = found.bins.assign(bin=[f"{place + 1} of {len(found.bins)}" for place in range(len(found.bins))])
    shown = table(bins, OUTCOMES, "Ten bins of equal size by score.") if len(bins) else ""
    return Part("outcomes", "What came true", "Intervals are 95 %, over customers.", _listed(told) + shown)


def _bars(names: Sequence[str], before: Sequence[float], after: Sequence[float]) -> str:
    """Bars side by side; the table below says the same in figures."""
    rows, most = [], max([*before, *after, 1e-9])
    for place, name in enumerate(names):
        top, wide = place * BAR, 560 / most
        new = f'<rect x="160" y="{top + 8}" width="{after[place] * wide:.1f}" height="6" fill="var(--accent)"/>'
        if before:
            new += f'<rect x="160" y="{top + 2}" width="{before[place] * wide:.1f}" height="6" fill="var(--muted)"/>'
        label = f'<text x="152" y="{top + 12}" text-anchor="end" font-size="11" fill="var(--ink)">{escape(name)}</text>'
        rows.append(label + new)
    height = len(names) * BAR
    return (
        '<div class="roll" role="group" aria-label="A picture, wider than a phone" tabindex="0">'
        f'<svg viewBox="0 0 740 {height}" width="740" height="{height}" role="img" '
        f'aria-label="Bars; the table below holds the figures.">{"".join(rows)}</svg></div>'
    )


def _scaled(values: Sequence[float]) -> list[float]:
    most = max([*values, 1e-9])
    return [value / most for value in values]


def _day(days: pd.DataFrame, place: int) -> str:
    return f"{days['day'].iloc[place]:%Y-%m-%d}"


def _listed(sentences: Sequence[str]) -> str:
    return f'<ul class="findings">{"".join(f"<li>{escape(one)}</li>" for one in sentences)}</ul>'
