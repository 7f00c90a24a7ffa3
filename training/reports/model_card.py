"""The model card: what a model is, for whom, how good, where it fails and what it must not be used for, as Markdown.

    card = model_card(contents, experiment)                 # model_card.md among the artifacts of its run
    short_form(card)                                        # in the description of a registered version

The order of sections follows M. Mitchell et al.: "Model Cards for Model Reporting" (FAT* 2019).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from features.labels.task import Task
from training.config.experiment import Experiment
from training.evaluation.customer_groups import sentences as group_sentences

CARD_FILE = "model_card.md"
SHORT_SECTIONS = ("What it is for", "How good", "Fairness", "Limits")
LONGEST_SHORT = 3_600  # characters: MLflow keeps 5,000 of a description, and the decision comes first
WHOLE_CARD = "The whole card is `model_card.md` of the run."


@dataclass(frozen=True)
class CardContents:
    """What a card reports of a model.

    Attributes:
        name: of the model.
        description: a sentence on what it is.
        kind: of the model.
        role: "model", "baseline", …
        commit: of the code, "" outside a repository.
        code_changed: whether files differ from that commit.
        data: lines on the log, the training rows and the held-out rows.
        limits: what to beware of, a sentence each.
        metrics: name of a model → its metrics, `validation_…` and `test_…`, for the model and the baselines.
        baselines: paired differences from them, see `training.fitting.comparison`.
        remarks: sentences on ablations, probes and members.
        slices: by `group_table`, kinds of customers.
        fairness: by `group_table`, the columns that the user named.
    """

    name: str
    description: str
    kind: str
    role: str
    commit: str
    code_changed: bool
    data: tuple[str, ...]
    limits: tuple[str, ...]
    metrics: Mapping[str, Mapping[str, float]]
    baselines: pd.DataFrame
    remarks: tuple[str, ...] = ()
    slices: pd.DataFrame = field(default_factory=pd.DataFrame)
    fairness: pd.DataFrame = field(default_factory=pd.DataFrame)


def model_card(contents: CardContents, experiment: Experiment) -> str:
    """The card of a final model.

    Args:
        contents: what was measured.
        experiment: that made the model.
    """
    sections = {
        "What it is for": _purpose(experiment),
        "Data and window": _listed(contents.data),
        "How good": _quality(contents, type(experiment.task)),
        "On which customers": _groups(contents.slices, "tenure, segment, value tier, channel"),
        "Fairness": _fairness(contents.fairness, experiment),
        "Limits": _listed((*contents.limits, *ALWAYS_LIMITS)),
        "Where it comes from": _origin(contents, experiment),
    }
    title = f"# Model card: {contents.name}, {experiment.name}\n\n{contents.description}"
    return "\n\n".join([title, *(f"## {name}\n\n{text}" for name, text in sections.items())]) + "\n"


ALWAYS_LIMITS = (
    "Touchpoints and channels never seen in training count as `other`; the service reports how many there were.",
    "Probabilities hold as long as customers behave as they did until the last training label closed.",
)


def _listed(sentences: tuple[str, ...]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def short_form(card: str) -> str:
    """What it is for, how good, whether fair, what to beware of; without the figures of each group."""
    header, *sections = card.strip().split("\n## ")
    chosen = [text for text in sections if text.startswith(SHORT_SECTIONS)]
    texts = [_without_table(text) if text.startswith("Fairness") else text for text in chosen]
    text = "\n\n".join([f"##{header.strip()}", *(f"#### {section.strip()}" for section in texts)])
    room = LONGEST_SHORT - len(WHOLE_CARD) - 4
    if len(text) > room:
        text = f"{text[:room].rpartition(chr(10))[0]}\n\n…"
    return f"{text}\n\n{WHOLE_CARD}"


def _without_table(section: str) -> str:
    return "\n".join(line for line in section.splitlines() if not line.startswith("|"))


def _purpose(experiment: Experiment) -> str:
    words = experiment.task.words()
    return f"{words.answer}\n\n- For whom: {words.audience}\n- Label: {words.label}\n- Not for: {words.limits}"


def _quality(contents: CardContents, task: type[Task]) -> str:
    """Metrics with intervals, the baselines beside them, and the paired differences."""
    baselines = [name for name in contents.metrics if name != contents.name]
    columns = [(contents.name, "validation"), (contents.name, "test"), *((name, "test") for name in baselines)]
    header = [f"{name}, {'held out' if split == 'test' else split}" for name, split in columns]
    lines = [f"| | {' | '.join(header)} |", "|---" * (len(header) + 1) + "|"]
    for metric in task.metrics:
        cells = [_metric(contents.metrics[name], f"{split}_{metric.name}") for name, split in columns]
        lines.append(f"| {metric.title} | {' | '.join(cells)} |")
    held_out = contents.baselines[contents.baselines["rows"] == "test"]
    sentences = (*(_against(row, task) for row in held_out.to_dict("records")), *contents.remarks)
    return "\n".join([*lines, "", "95 % intervals, by resampling customers.", "", _listed(sentences)]).strip()


def _against(row: Mapping[Any, Any], task: type[Task]) -> str:
    """Whether it beats a baseline on held-out rows."""
    metric = task.metric(task.promotion.metric)
    low, high = metric.gain(row)
    verdict = "Surely better than" if low > 0 else "Surely worse than" if high < 0 else "Not surely better than"
    difference = f"{metric.title} {metric.difference_text(row)}"
    return f"{verdict} the baseline `{row['against']}` on held-out rows: {difference}."


def _metric(metrics: Mapping[str, float], key: str) -> str:
    value, low, high = (metrics.get(f"{key}{end}", float("nan")) for end in ("", "_low", "_high"))
    if value != value:
        return "–"
    return f"{value:.3f} ({low:.3f} to {high:.3f})" if low == low else f"{value:.3f}"


def _groups(table: pd.DataFrame, by: str) -> str:
    """What is surely off, then every group."""
    if table.empty:
        return f"The held-out rows cannot be told apart by {by}."
    text = _listed(tuple(group_sentences(table))) or (
        f"On none of {len(table)} groups ({', '.join(table['kind'].unique())}) is it surely off or surely worse."
    )
    return "\n".join([text, "", *_rows(table)])


def _rows(table: pd.DataFrame) -> list[str]:
    lines = ["| kind | group | customers | observed | predicted | AUROC |", "|---|---|---|---|---|---|"]
    rows: list[dict[Any, Any]] = table.to_dict("records")
    for row in rows:
        observed = f"{row['base_rate']:.1%} ({row['base_rate_low']:.1%} to {row['base_rate_high']:.1%})"
        cells = (row["kind"], row["group"], f"{row['n_customers']:,}", observed, f"{row['mean_prediction']:.1%}")
        lines.append(f"| {' | '.join(map(str, cells))} | {_metric(row, 'auroc')} |")
    return [line.replace("nan%", "–") for line in lines]


def _fairness(table: pd.DataFrame, experiment: Experiment) -> str:
    if not experiment.report.fairness:
        return (
            "Not looked at: name the columns that describe customers in the experiment file, such as "
            '`[report]` with `fairness = ["country"]`.'
        )
    return f"Groups of {', '.join(experiment.report.fairness)}, held-out rows.\n\n" + _groups(table, "these columns")


def _origin(contents: CardContents, experiment: Experiment) -> str:
    changed = ", with files changed" if contents.code_changed else ""
    code = f"commit `{contents.commit[:12]}`{changed}" if contents.commit else "code without a commit"
    return (
        f"- Kind `{contents.kind}`, role {contents.role}, seed {experiment.seed}, {code}\n"
        "- The experiment is `experiment/`, the settings `settings.json`, the machine and every package "
        "`environment/` of this run; `journeylab reproduce RUN_ID` makes the model again and compares each figure."
    )
