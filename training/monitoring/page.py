"""The page of `journeylab monitor`: alarms first, then every check, scores, days, versions, outcomes; opens offline."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.markup import escape as escaped
from rich.table import Table as RichTable

from training.monitoring.report import MonitorReport
from training.reports.blocks import Bars, PageColumn, Sentences, Table
from training.reports.numbers import clean, count
from training.reports.pages import Fact, Page, PageSection, write_page

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
    PageColumn("name", "What", "name"), PageColumn("state", "State", "text"), PageColumn("value", "Value", "number"),
    PageColumn("threshold", "Threshold", "number"), PageColumn("chance", "Chance reaches", "number"),
    PageColumn("words", "In words", "sentence"),
)  # fmt: skip
DAYS = (
    PageColumn("day", "Day", "name"), PageColumn("answers", "Answers"), PageColumn("rows", "Rows"),
    PageColumn("customers", "Customers"), PageColumn("score", "Mean score", "number"),
    PageColumn("unknown", "Unknown touchpoints", "share"),
)  # fmt: skip
VERSIONS = (
    PageColumn("version", "Version", "name"), PageColumn("state", "Judged", "text"), PageColumn("answers", "Answers"),
    PageColumn("rows", "Rows"), PageColumn("first", "First", "text"), PageColumn("last", "Last", "text"),
    PageColumn("score", "Mean score", "number"), PageColumn("reference", "Reference", "text"),
)  # fmt: skip
SCORES = (
    PageColumn("answer", "Answer", "name"), PageColumn("training", "Held out", "share"),
    PageColumn("served", "Served", "share"),
)  # fmt: skip
OUTCOMES = (
    PageColumn("bin", "Bin of scores", "name"), PageColumn("rows", "Answers"),
    PageColumn("score", "Mean score", "share"), PageColumn("rate", "Came true", "share"),
)  # fmt: skip
METRICS = {"auroc": "AUROC", "average_precision": "Average precision", "brier": "Brier score",
                 "calibration_error": "Calibration error"}  # fmt: skip
MOST = 60
IN_TERMINAL = 20


def write_monitor_page(report: MonitorReport, path: Path) -> Path:
    """Write the page.

    Args:
        report: the checks and their tables.
        path: of the file; its folder is made.
    """
    return write_page(monitor_page(report), path)


def monitor_page(report: MonitorReport) -> Page:
    """The page as data."""
    first, last = (f"{report.days['day'].iloc[place]:%Y-%m-%d}" for place in (0, -1))
    sections = [_summary(report), *_checks(report), _scores(report), _days(report), _versions(report)]
    return Page(
        title=f"Monitor: {report.name}, version {report.version}",
        lead=f"What was served from {first} to {last}, against what was trained on. Times are UTC.",
        facts=(
            Fact("Answers", count(report.figures["answers"])),
            Fact("Rows recorded", count(report.figures["rows"])),
            Fact("Customers", count(report.figures["customers"])),
            Fact("Alarms", count(len(report.alarms))),
        ),
        sections=[*sections, *_outcomes(report)],
    )


def terminal_table(report: MonitorReport) -> RichTable:
    """The checks that are furthest from fine, as a table for a terminal."""
    title = f"{report.name}, version {report.version}: {report.figures['answers']:,.0f} answers"
    drawn = RichTable(box=box.SIMPLE_HEAD, title=title)
    for name in ("check", "of", "value", "threshold", "chance reaches", "state"):
        drawn.add_column(name, justify="right" if name in ("value", "threshold", "chance reaches") else "left")
    for row in report.checks.head(IN_TERMINAL).itertuples():
        figures = (f"{row.value:.3f}", f"{row.threshold:.3f}", f"{row.chance:.3f}")
        subject = escaped(clean(row.name))
        drawn.add_row(str(row.kind), subject, *figures, "[bold red]ALARM[/]" if row.alarm else "fine")
    return drawn


def _summary(report: MonitorReport) -> PageSection:
    alarms = [f"Alarm. {words}" for words in report.alarms] or ["No alarm: nothing is past its threshold."]
    return PageSection("first", "What to know first", [Sentences([*alarms, *report.notes])])


def _checks(report: MonitorReport) -> list[PageSection]:
    how = "A value is an alarm when it is above its threshold and above what chance reaches."
    state = report.checks["alarm"].map({True: "alarm", False: "fine"})
    by_kind = dict(iter(report.checks.assign(state=state).groupby("kind", sort=False)))
    return [
        PageSection(kind, title, [Table(by_kind[kind], CHECKED, caption, MOST)], how)
        for kind, (title, caption) in KINDS.items()
        if kind in by_kind
    ]


def _scores(report: MonitorReport) -> PageSection:
    how = "The grey bar is the share of the held-out rows of training, the other one of what is served."
    frame = report.scores
    bars = [Bars(frame["answer"].tolist(), frame["served"].tolist(), frame["training"].tolist())] if len(frame) else []
    return PageSection("scores", "What was answered", [*bars, Table(frame, SCORES, "Shares of answers.")], how)


def _days(report: MonitorReport) -> PageSection:
    frame = report.days.assign(day=report.days["day"].dt.strftime("%Y-%m-%d"))
    bars = Bars(frame["day"].tolist()[-MOST:], frame["answers"].tolist()[-MOST:])
    how = "Answers a day; where more was asked than is recorded, a row stands for several."
    return PageSection("days", "Volume", [bars, Table(frame, DAYS, "Days of this report.")], how)


def _versions(report: MonitorReport) -> PageSection:
    state = report.versions["judged"].map({True: "yes", False: "no"})
    stamps = {name: report.versions[name].dt.strftime("%Y-%m-%d %H:%M") for name in ("first", "last")}
    frame = report.versions.assign(state=state, **stamps)
    how = "Rows are judged where their bins are those of this version's training."
    rows = Table(frame, VERSIONS, "Versions of this champion among the rows.")
    return PageSection("versions", "Versions", [rows], how)


def _outcomes(report: MonitorReport) -> list[PageSection]:
    outcomes = report.outcomes
    if outcomes is None:
        return []
    sentences = [f"{count(outcomes.labelled)} answers have a label, {count(outcomes.positives)} of them came true."]
    for name, title in METRICS.items():
        if name in outcomes.figures:
            value, low, high = (outcomes.figures[f"{name}{end}"] for end in ("", "_low", "_high"))
            sentences.append(f"{title}: {value:.3f} ({low:.3f} to {high:.3f}).")
    n = len(outcomes.bins)
    bins = outcomes.bins.assign(bin=[f"{place + 1} of {n}" for place in range(n)])
    tables = [Table(bins, OUTCOMES, "Ten bins of equal size by score.")] if n else []
    return [
        PageSection(
            "outcomes", "What came true", [Sentences(sentences), *tables], "Intervals are 95 %, over customers."
        )
    ]
