"""Write the pages that are made from the code: docs/experiment_file.md, docs/commands.md.

    make docs

The words come from docstrings, `Attributes` and `--help`; a test asks that the files are as this would write them.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import types
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer.main
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from experiments.cli import app
from features.conditions import conditions
from features.events.attributes import ProfileTable
from features.events.source import EventSource
from features.journey_map.settings import MapSettings
from features.labels.cutoffs import Ages, Counted, Dates, Every, TableSplit
from features.labels.kinds import KINDS
from features.labels.label_table import LabelColumns
from features.sequences.sequences import SequenceSettings
from features.tabular.settings import TabularSettings
from models.boosting.gbdt import GBDTSettings
from models.segments.clustering.clusters import ClusterSettings
from models.segments.insight.drift import DriftSettings
from models.segments.insight.targets import Goal, TargetSettings
from models.segments.lookalikes import LookalikeSettings
from models.segments.rules.rule_segments import Rule
from models.segments.rules.scheme_settings import SchemeSettings
from models.sequence.settings import EncoderSettings, ProbeSettings, SequenceModelSettings
from training.config.experiment import Experiment, Models, SearchSettings
from training.config.report_settings import Report
from training.config.segment_settings import Segments

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("features", "models", "training", "serving", "experiments")
GENERATED = "<!-- Written by `make docs` from docstrings: change those, not this file. -->"

# The tables of an experiment file: how each is written, what it is for, and the classes that say its keys.
TABLES: tuple[tuple[str, str, type], ...] = (
    ("The file itself", "Keys at the top, before any table.", Experiment),
    ("[events]", "Where the events are and how to read them.", EventSource),
    ("[events.profile_table]", "Static facts about customers, one row each.", ProfileTable),
    *((f'[task] kind = "{kind}"', (task.__doc__ or "").partition("\n")[0], task) for kind, task in KINDS.items()),
    ("[task.columns]", "What the label table calls its columns.", LabelColumns),
    ("[task.cutoffs], counted", "Counted back from the log's end; the default.", Counted),
    ("[task.cutoffs], dates", "The same dates for every customer.", Dates),
    ("[task.cutoffs] train = { … }", "Regular dates instead of a list.", Every),
    ("[task.cutoffs], ages", "For conversion: so long after a customer's first event.", Ages),
    ("[task.cutoffs], labels", "For a label table without a column `split`.", TableSplit),
    ("[models]", "Which models are searched.", Models),
    ("[models.settings.gbdt]", "LightGBM. What is set here is not searched.", GBDTSettings),
    ("[models.settings.probe]", "A linear probe on an encoder; the encoder's keys as well.", ProbeSettings),
    ("[models.settings.gru], transformer", "A fine-tuned encoder; the encoder's keys as well.", SequenceModelSettings),
    ("The encoder's keys", "Of `gru`, `transformer`, `probe`, and of `[segments.found.encoder]`.", EncoderSettings),
    ("sequences = { … } of an encoder", "What a step of a journey carries.", SequenceSettings),
    ("[search]", "How long to search.", SearchSettings),
    ("[features]", "The tabular features.", TabularSettings),
    ("[report]", "Pictures and tables for the reviewer.", Report),
    ("[map]", "The journey map.", MapSettings),
    ("[segments]", "Partitions of the customers.", Segments),
    ("[segments.found]", "Clusters.", ClusterSettings),
    ("[segments.schemes]", "What the built-in segments take touchpoints for.", SchemeSettings),
    ("[[segments.rules]]", "A marketer's own segments, one table each.", Rule),
    ("[[segments.goals]]", "Goals for segments, one table each.", Goal),
    ("[segments.targets]", "Who counts as reachable.", TargetSettings),
    ("[segments.drift]", "Thresholds for segments that drift.", DriftSettings),
    ("[segments.lookalikes]", "Saves the customers' vectors, under keyed hashes.", LookalikeSettings),
)


@dataclass(frozen=True)
class Key:
    """A key of a table, as the documentation shows it."""

    name: str
    holds: str
    default: str
    meaning: str


def main() -> None:
    """Write all of it."""
    for name, text in pages().items():
        (ROOT / "docs" / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """File in docs/ → its text."""
    return {"experiment_file.md": experiment_file(), "commands.md": commands()}


def modules() -> list[Path]:
    """Every Python file of the packages."""
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def first_line(path: Path) -> str:
    """The first line of a module's docstring, "" where there is none."""
    return next(iter((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()), "")


def experiment_file() -> str:
    """docs/experiment_file.md."""
    example = (ROOT / "experiments" / "configs" / "demo.toml").read_text(encoding="utf-8")
    parts = [
        "# The experiment file",
        GENERATED,
        "One TOML file says where the events are, what to predict, which models to try and how long to search. Paths "
        "in it are relative to its own folder. `journeylab draft LOG` writes one for a log of your own; "
        "`--set KEY=VALUE` overrides a key for one run, with a dotted key such as `search.trials=5`. A misspelt key "
        "is an error that names the right one.",
        "## An example, line by line",
        "`experiments/configs/demo.toml`, the one to copy:",
        f"```toml\n{example.strip()}\n```",
        "## Every key",
        "A key without a default is needed; `–` is a default of nothing.",
    ]
    for heading, words, section in TABLES:
        parts += [f"### `{heading}`" if heading[0] == "[" else f"### {heading}", words, _table(section)]
    parts += ["### Conditions", _conditions()]
    return "\n\n".join(parts) + "\n"


def _table(section: type) -> str:
    rows = ["| key | what it is | holds | default |", "|---|---|---|---|"]
    for key in keys(section):
        cells = (f"`{key.name}`", key.meaning, key.holds, key.default)
        rows.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(rows)


def keys(section: type) -> list[Key]:
    """The keys of a settings class, each with its line of the docstring.

    Raises:
        ValueError: a key that the docstring says nothing about.
    """
    words, hints = attributes(section), get_type_hints(section, include_extras=True)
    table = []
    for name, default in _defaults(section):
        if name not in words:
            raise ValueError(f"{section.__name__}: the docstring does not say what '{name}' is")
        table.append(Key(name, holds(hints[name]), default, words[name]))
    return table


def _defaults(section: type) -> Iterator[tuple[str, str]]:
    """The class's keys and their defaults."""
    if issubclass(section, BaseModel):
        for name, field in section.model_fields.items():
            value = field.get_default(call_default_factory=True)
            yield name, "needed" if value is PydanticUndefined else _toml(value)
    elif is_dataclass(section):
        above = {each.name for base in section.__bases__ if is_dataclass(base) for each in fields(base)}
        for each in fields(section):
            default = each.default_factory() if each.default_factory is not MISSING else each.default
            if each.name not in above:
                yield each.name, "needed" if default is MISSING else _toml(default)


def _toml(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, BaseModel) or is_dataclass(value):
        return "its own"
    if isinstance(value, PurePath):
        return f'`"{value}"`'
    text = json.dumps(value, default=str, ensure_ascii=False)
    if isinstance(value, dict):
        return "`{}`" if not value else "see there" if len(text) > 60 else f"`{text}`"
    return f"`{text}`" if len(text) <= 60 else "all of them" if isinstance(value, tuple) else f"`{text[:57]}…`"


def holds(hint: Any) -> str:
    """A type in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return holds(inner[0])
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(holds(part) for part in inner if part is not type(None)))
    if origin is Literal:
        return ", ".join(f"`{json.dumps(part)}`" for part in inner)
    if origin in (tuple, list):
        return f"list of {holds(inner[0])}" if inner else "list"
    if origin is dict:
        return f"table of {holds(inner[1])}"
    plain = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path", Any: "anything"}
    if hint in plain:
        return plain[hint]
    if inspect.isclass(hint) and (issubclass(hint, BaseModel) or is_dataclass(hint)):
        return "condition" if issubclass(hint, conditions.Condition) else "table"
    return {"datetime": "moment", "date": "date"}.get(getattr(hint, "__name__", ""), "text")


def attributes(section: type) -> dict[str, str]:
    """Attribute → its words in the docstring; of those that share a line, each has it."""
    _, _, below = inspect.cleandoc(section.__doc__ or "").partition("Attributes:\n")
    entries: list[list[str]] = []
    for line in below.splitlines():
        if re.match(r" {4}\w", line):
            entries.append([line.strip()])
        elif line.startswith("     ") and entries:
            entries[-1].append(line.strip())
        elif line.strip() and not line.startswith(" "):
            break
    pairs = [" ".join(entry).partition(": ") for entry in entries]
    return {name: words for names, _, words in pairs for name in names.split(", ")}


def _conditions() -> str:
    """The docstring of `features.conditions.conditions`: its first block is an example, the rest is about keys."""
    text = inspect.cleandoc(conditions.__doc__ or "")
    table = text[text.index("| key |") :]
    example = next(line.strip() for line in text.splitlines() if line.strip().startswith("when ="))
    return f"What `when` of a rule may say, for instance\n\n```\n{example}\n```\n\n{table}"


def commands() -> str:
    """docs/commands.md."""
    parts = [
        "# The commands",
        GENERATED,
        "`.venv/bin/journeylab COMMAND --help` says the same. Each command ends with the path or URI of what it made "
        "on its last line; with `--json` that line is all of it as JSON, for scripts. What it does meanwhile goes to "
        "standard error. Status 0: done; 2: something is to be corrected, named in a sentence; 3: done, and the "
        "answer is no (`reproduce`, `monitor`); 130: stopped by Ctrl-C.",
    ]
    for name, command in commands_of().items():
        parts += [f"## journeylab {name}", _prose(command.help or ""), _options(command)]
    return "\n\n".join(parts) + "\n"


def commands_of() -> dict[str, Any]:
    """Name → click command, in the order of `journeylab --help`."""
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def _prose(text: str) -> str:
    return "\n\n".join(" ".join(block.split()) for block in inspect.cleandoc(text).split("\n\n"))


def _options(command: Any) -> str:
    rows = ["| | | default |", "|---|---|---|"]
    for option in command.params:
        if option.name in ("help", "as_json"):
            continue
        is_option = option.param_type_name == "option"
        name = " / ".join((*option.opts, *option.secondary_opts)) if is_option else str(option.name).upper()
        value = option.default
        default = "needed" if option.required else "–" if value in (None, False) or callable(value) else f"`{value}`"
        rows.append(f"| `{name}` | {getattr(option, 'help', '') or ''} | {default} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
