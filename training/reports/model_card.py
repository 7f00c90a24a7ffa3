"""The model card: what a model is, for whom, how good, where it fails and what it must not be used for, as Markdown.

    card = model_card(final, experiment, data, shown)       # model_card.md among the artifacts of its run
    short_form(card)                                        # in the description of a registered version

The order of sections follows M. Mitchell et al.: "Model Cards for Model Reporting" (FAT* 2019).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from features.labels.labels import as_text
from training.config.experiment import ChurnTask, ConversionTask, Experiment
from training.data.records import TaskData, code_version, span
from training.evaluation.customer_groups import sentences as surely_off
from training.evaluation.metrics import remarks
from training.fitting.finals import Final

FILE = "model_card.md"
FIGURES = {"auroc": "AUROC", "average_precision": "average precision", "brier": "Brier", "log_loss": "log loss",
           "calibration_error": "calibration error", "lift_at_10": "lift at 10 %"}  # fmt: skip
SHORT_SECTIONS = ("What it is for", "How good", "Fairness", "Limits")
LONGEST_SHORT = 3_600  # characters: MLflow keeps 5,000 of a description, and the decision comes first
THE_REST = "The whole card is `model_card.md` of the run."


@dataclass(frozen=True)
class Shown:
    """What a card reports of.

    Attributes:
        figures: name of a final → its metrics, `validation_…` and `test_…`, for the model and the straw men.
        straw_men: paired differences from them, see `training.fitting.comparison`.
        remarks: sentences on twins, probes and members.
        slices: by `group_table`, kinds of customers.
        fairness: by `group_table`, the columns that the user named.
    """

    figures: Mapping[str, Mapping[str, float]]
    straw_men: pd.DataFrame
    remarks: tuple[str, ...] = ()
    slices: pd.DataFrame = field(default_factory=pd.DataFrame)
    fairness: pd.DataFrame = field(default_factory=pd.DataFrame)


def model_card(final: Final, experiment: Experiment, data: TaskData, shown: Shown) -> str:
    """The card of a final model.

    Args:
        final: the model.
        experiment: that made it.
        data: its rows.
        shown: what was measured.
    """
    sections = {
        "What it is for": _purpose(experiment),
        "Data and window": _data(experiment, data),
        "How good": _quality(final, shown),
        "On which customers": _groups(shown.slices, "tenure, segment, value tier, channel"),
        "Fairness": _fairness(shown.fairness, experiment),
        "Limits": _limits(final, data),
        "Where it comes from": _origin(final, experiment),
    }
    head = f"# Model card: {final.name}, {experiment.name}\n\n{final.said}"
    return "\n\n".join([head, *(f"## {title}\n\n{text}" for title, text in sections.items())]) + "\n"


def short_form(card: str) -> str:
    """What it is for, how good, whether fair, what to beware of; without the figures of each group."""
    head, *sections = card.strip().split("\n## ")
    kept = [text for text in sections if text.startswith(SHORT_SECTIONS)]
    shown = [_without_table(text) if text.startswith("Fairness") else text for text in kept]
    text = "\n\n".join([f"##{head.strip()}", *(f"#### {section.strip()}" for section in shown)])
    room = LONGEST_SHORT - len(THE_REST) - 4
    if len(text) > room:
        text = f"{text[:room].rpartition(chr(10))[0]}\n\n…"
    return f"{text}\n\n{THE_REST}"


def _without_table(section: str) -> str:
    return "\n".join(line for line in section.splitlines() if not line.startswith("|"))


def _purpose(experiment: Experiment) -> str:
    task, days = experiment.task, f"{experiment.task.horizon_days:g} days"
    if isinstance(task, ChurnTask):
        active = _named(task.activity)
        who = f"Customers with {active} in the {task.active_days:g} days before the cutoff."
        label = f"1 where none of it happens in [cutoff, cutoff + {days}), else 0."
    elif isinstance(task, ConversionTask):
        who = f"Customers who have not reached {_named(task.goal)}"
        who += f" nor ended with {_named(task.ended)}" if task.ended else ""
        who += f", with some event in the {task.active_days:g} days before the cutoff." if task.active_days else "."
        label = f"1 where {_named(task.goal)} happens in [cutoff, cutoff + {days}), else 0."
    else:
        who = f"The customers of the label table `{task.path.name}`."
        label = f"As in that table; known {days} after the cutoff."
    return "\n".join(
        [
            "A calibrated probability for each customer as known at a cutoff: to rank customers, to plan for how many, "
            "and to weigh what an action costs against what it may save.",
            "",
            f"- For whom: {who}",
            f"- Label: {label}",
            "- Not for: other customers, other horizons, or what an action would change: it says who, not why.",
        ]
    )


def _named(touchpoints: tuple[str, ...]) -> str:
    return "any event" if touchpoints == ("*",) else " or ".join(f"`{name}`" for name in touchpoints)


def _data(experiment: Experiment, data: TaskData) -> str:
    journeys = data.journeys
    known = [as_text(moment)[:10] for moment in (journeys.start_us, journeys.end_us)]
    return "\n".join(
        [
            f"- Log: {journeys.n_events:,} events of {journeys.n_customers:,} customers, {known[0]} to {known[1]} "
            f"(fingerprint `{data.fingerprint[:12]}`)",
            f"- Train: {span(data.train, data.y_train)}; the last label closed on {as_text(data.trained_until)}",
            f"- Held out: {span(data.test, data.y_test)}; scored once, after all settings were fixed",
        ]
    )


def _quality(final: Final, shown: Shown) -> str:
    """Figures with intervals, the straw men beside them, and the paired differences."""
    others = [name for name in shown.figures if name != final.name]
    columns = [(final.name, "validation"), (final.name, "test"), *((name, "test") for name in others)]
    head = [f"{name}, {'held out' if split == 'test' else split}" for name, split in columns]
    lines = [f"| | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    for metric, said in FIGURES.items():
        cells = [_figure(shown.figures[name], f"{split}_{metric}") for name, split in columns]
        lines.append(f"| {said} | {' | '.join(cells)} |")
    told = [f"- {_against(row)}" for _, row in shown.straw_men[shown.straw_men["rows"] == "test"].iterrows()]
    told += [f"- {remark}" for remark in shown.remarks]
    return "\n".join([*lines, "", "95 % intervals, by resampling customers.", "", *told]).strip()


def _against(row: pd.Series) -> str:
    """Whether it beats a straw man on held-out rows."""
    difference, low, high = (float(row[f"auroc_difference{end}"]) for end in ("", "_low", "_high"))
    how = "Surely better than" if low > 0 else "Surely worse than" if high < 0 else "Not surely better than"
    figures = f"AUROC {difference:+.4f} (95 % {low:+.4f} to {high:+.4f})".replace("-", "−")
    return f"{how} the straw man `{row['against']}` on held-out rows: {figures}."


def _figure(metrics: Mapping[str, float], key: str) -> str:
    value, low, high = (metrics.get(f"{key}{end}", float("nan")) for end in ("", "_low", "_high"))
    if value != value:
        return "–"
    return f"{value:.3f} ({low:.3f} to {high:.3f})" if low == low else f"{value:.3f}"


def _groups(table: pd.DataFrame, by: str) -> str:
    """What is surely off, then every group."""
    if table.empty:
        return f"The held-out rows cannot be told apart by {by}."
    off = surely_off(table)
    told = [f"- {said}" for said in off] or [
        f"On none of {len(table)} groups ({', '.join(table['kind'].unique())}) is it surely off or surely worse."
    ]
    return "\n".join([*told, "", *_rows(table)])


def _rows(table: pd.DataFrame) -> list[str]:
    lines = ["| kind | group | customers | observed | predicted | AUROC |", "|---|---|---|---|---|---|"]
    rows: list[dict[Any, Any]] = table.to_dict("records")
    for row in rows:
        observed = f"{row['base_rate']:.1%} ({row['base_rate_low']:.1%} to {row['base_rate_high']:.1%})"
        cells = (row["kind"], row["group"], f"{row['n_customers']:,}", observed, f"{row['mean_prediction']:.1%}")
        lines.append(f"| {' | '.join(map(str, cells))} | {_figure(row, 'auroc')} |")
    return [line.replace("nan%", "–") for line in lines]


def _fairness(table: pd.DataFrame, experiment: Experiment) -> str:
    if not experiment.report.fairness:
        return (
            "Not looked at: name the columns that describe customers in the experiment file, such as "
            '`[report]` with `fairness = ["country"]`.'
        )
    return f"Groups of {', '.join(experiment.report.fairness)}, held-out rows.\n\n" + _groups(table, "these columns")


def _limits(final: Final, data: TaskData) -> str:
    y, customers, _ = data.scored("test")
    told = [
        *data.notes,
        *remarks(y, final.test, customers),
        "Touchpoints and channels never seen in training count as `other`; the service reports how many there were.",
        "Probabilities hold as long as customers behave as they did until the last training label closed.",
    ]
    return "\n".join(f"- {one}" for one in told)


def _origin(final: Final, experiment: Experiment) -> str:
    commit, changed = code_version()
    code = f"commit `{commit[:12]}`{', with files changed' if changed else ''}" if commit else "code without a commit"
    return "\n".join(
        [
            f"- Kind `{final.kind}`, role {final.role}, seed {experiment.seed}, {code}",
            "- The experiment is `experiment/`, the settings `settings.json`, the machine and every package "
            "`environment/` of this run; `journeylab reproduce RUN_ID` makes the model again and compares each figure.",
        ]
    )
