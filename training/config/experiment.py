"""An experiment: one TOML file with the events, the task, the models and the search.

    experiment = load_experiment("experiments/configs/online_retail_churn.toml", ["search.trials=5"])
    journeys = load_journeys(experiment.events)
    table = experiment.build_labels(journeys)     # customer_id, cutoff, label, split

`docs/experiment_file.md` explains every key. A misspelt key is an error that names the right one.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import pandas as pd
from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from features.errors import ConfigError, missing_path, unknown_name
from features.events.checks import write_quarantine
from features.events.source import EventSource
from features.journey_map.settings import MapSettings
from features.journeys.journeys import Journeys
from features.labels.kinds import AnyTask
from features.labels.plan import LabelBuild, build_labels
from features.settings import Section, explain, unknown_key
from training.config.report_settings import Report

if TYPE_CHECKING:
    from training.config.segment_settings import Segments

SLUG = re.compile(r"[a-z][a-z0-9_]{0,62}")
URI = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # a path that only Spark can read
PATHS = ("events.path", "events.profile_table.path", "task.path")


class SearchSettings(Section):
    """How the settings of models are searched.

    Attributes:
        trials: of each search, those of earlier runs included.
        trials_of: kind → its own number of trials, where it differs.
        seed: of the search; the experiment's seed where not given.
        jobs: processes at a time.
        timeout_s: after which a search stops.
    """

    trials: int = Field(default=30, ge=1)
    trials_of: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    seed: int | None = None
    jobs: int = Field(default=1, ge=1)
    timeout_s: float | None = Field(default=None, gt=0)

    def of(self, kind: str) -> int:
        """The number of trials of the search of a kind."""
        return self.trials_of.get(kind, self.trials)


class Models(Section):
    """Which models are searched; the baselines run in every experiment.

    Attributes:
        which: kinds to search, such as "gbdt"; the catalogue adds ablations, probes and combinations.
        settings: kind → settings that are fixed and not searched.
    """

    which: tuple[str, ...] = ("gbdt",)
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @field_validator("which")
    @classmethod
    def _check_models(cls, which: tuple[str, ...]) -> tuple[str, ...]:
        from models.catalogue import BASELINES, searchable_kinds  # heavy (LightGBM), and only a file needs it

        for kind in which:
            if kind in BASELINES:
                raise ValueError(f"'{kind}' is a baseline and runs in every experiment: leave it out")
            if kind not in searchable_kinds():
                raise ValueError(unknown_name("model to search", kind, searchable_kinds()))
        if not which or len(set(which)) < len(which):
            raise ValueError("name at least one model, and each once")
        return which

    @model_validator(mode="after")
    def _check_model_settings(self) -> Self:
        from models.catalogue import check_settings

        for kind in self.settings:
            if kind not in self.which:
                raise ValueError(f"settings for '{kind}', which is not among the models: {', '.join(self.which)}")
            try:
                check_settings(kind, self.settings[kind])
            except (ConfigError, ValidationError) as error:
                reason = explain(error).strip() if isinstance(error, ValidationError) else str(error)
                raise ValueError(f"settings.{kind}: {reason}") from error
        return self


class Experiment(Section):
    """The whole file.

    Attributes:
        name: of the MLflow experiment and of the registered model: lower case, digits, underscores.
        events: where the events are (`features.events.source.EventSource`).
        task: what to predict, for whom and when (`features.labels`).
        features: settings of the tabular features that differ from their defaults.
        models: which models.
        search: how long to search.
        map: of the journey map (`features.journey_map.settings`).
        segments: of the segments (`training.config.segment_settings`).
        report: what a reviewer sees beside the metrics (`training.config.report_settings`).
        seed: of everything random.
        min_class_count: the fewest positives and negatives in training that are modelled without `allow_small`.
        allow_small: train although there is too little data to trust the result.
    """

    name: str
    events: EventSource
    task: AnyTask
    features: dict[str, Any] = Field(default_factory=dict)
    models: Models = Models()
    search: SearchSettings = SearchSettings()
    map: MapSettings = MapSettings()
    segments: dict[str, Any] = Field(default_factory=dict)
    report: Report = Report()
    seed: int = Field(default=7, ge=0)
    min_class_count: int = Field(default=100, ge=1)
    allow_small: bool = False
    _file: Path | None = PrivateAttr(None)
    _overrides: tuple[str, ...] = PrivateAttr(())

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not SLUG.fullmatch(name):
            raise ValueError("a name is lower case letters, digits and underscores, at most 63, a letter first")
        return name

    @field_validator("features")
    @classmethod
    def _check_features(cls, features: dict[str, Any]) -> dict[str, Any]:
        from features.tabular.settings import (
            TabularSettings,  # heavy (compiled kernels), and only a file needs it
        )

        for key in features:
            if key not in TabularSettings.model_fields:
                raise ValueError(unknown_key(key, TabularSettings.model_fields))
        try:
            TabularSettings(**features)
        except ValidationError as error:
            raise ValueError(f"settings of the tabular features:\n{explain(error)}") from error
        return features

    @field_validator("segments")
    @classmethod
    def _check_segments(cls, segments: dict[str, Any]) -> dict[str, Any]:
        if segments:
            _segments_of(segments)
        return segments

    @model_validator(mode="after")
    def _check_trials(self) -> Self:
        for kind in self.search.trials_of:
            if kind not in self.models.which:
                raise ValueError(f"trials_of '{kind}', which is not among the models: {', '.join(self.models.which)}")
        return self

    @model_validator(mode="after")
    def _check_fairness(self) -> Self:
        schema = self.events.schema()
        columns = [*schema.category_columns, *schema.number_columns]
        for name in self.report.fairness:
            if name not in columns:
                reason = (
                    unknown_key(name, columns).replace("unknown key", "no column").replace("Known keys", "There are")
                )
                raise ValueError(f"report.fairness: {reason}")
        return self

    @property
    def file(self) -> Path | None:
        """The file of the experiment, if any."""
        return self._file

    @property
    def overrides(self) -> tuple[str, ...]:
        """The values of `--set`, as written."""
        return self._overrides

    @property
    def search_seed(self) -> int:
        """The seed of the search."""
        return self.seed if self.search.seed is None else self.search.seed

    @property
    def segmentation(self) -> Segments:
        """`[segments]` with its defaults."""
        return _segments_of(self.segments)

    def build_labels(self, journeys: Journeys) -> pd.DataFrame:
        """The label table: `customer_id, cutoff, label, split` (and `age_days` where ages were given).

        Raises:
            DataError: cutoffs that the log does not cover, test cutoffs before a training label has closed, too
                little data.
        """
        return self.labels(journeys).table

    def labels(self, journeys: Journeys, quarantine_path: Path | None = None) -> LabelBuild:
        """As `build_labels`, with notes; rejected rows of a label table go to `quarantine_path` (CSV)."""
        build = build_labels(self.task, journeys, min_class_count=self.min_class_count, allow_small=self.allow_small)
        if quarantine_path is not None:
            write_quarantine(build.quarantine, quarantine_path)
        return build


def _segments_of(data: dict[str, Any]) -> Segments:
    from training.config.segment_settings import Segments  # heavy (the models), and only a file needs it

    try:
        return Segments.model_validate(data)
    except ValidationError as error:
        raise ValueError(f"settings of the segments:\n{explain(error)}") from error


def load_experiment(path: Path | str, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment file.

    Args:
        path: a TOML file; paths in it are relative to its folder.
        overrides: `key=value` with a dotted key, as `--set` takes them. The value is TOML where it can be, text
            otherwise; paths are relative to the working directory.

    Raises:
        ConfigError: no such file, no TOML, an unknown key, a value that does not fit.
    """
    file = Path(path)
    data = _absolute(_read(file), file.resolve().parent)
    for override in overrides:
        put(data, override)
    try:
        experiment = Experiment.model_validate(data)
    except ValidationError as error:
        options = f" with --set {' --set '.join(overrides)}" if overrides else ""
        raise ConfigError(f"{file}{options}:\n{explain(error)}") from error
    experiment._file, experiment._overrides = file, tuple(overrides)
    return experiment


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"No experiment file. {missing_path(file)}") from error
    except IsADirectoryError as error:
        files = sorted(path.name for path in file.glob("*.toml"))
        hint = f"name a file of it: {', '.join(files)}" if files else "it holds no experiment file"
        raise ConfigError(f"{file} is a folder: {hint}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{file} cannot be read as TOML: {error}") from error


def _absolute(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Every path in the data made absolute, from `folder` on."""
    for dotted in PATHS:
        *parents, key = dotted.split(".")
        table: Any = data
        for parent in parents:
            table = table.get(parent) if isinstance(table, dict) else None
        if isinstance(table, dict) and isinstance(table.get(key), str) and not URI.match(table[key]):
            table[key] = str((folder / Path(table[key]).expanduser()).resolve())
    return data


def put(data: dict[str, Any], override: str) -> None:
    """Put one `key=value` in place; a table as the value replaces the table that was there.

    Raises:
        ConfigError: no `key=value`, or a key below one that is a value.
    """
    dotted, equals, text = override.partition("=")
    keys = [key.strip() for key in dotted.split(".")]
    if not equals or not all(keys):
        raise ConfigError(f"--set {override}: write KEY=VALUE with a dotted key, such as --set search.trials=5.")
    table = data
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {override}: '{key}' is a value, not a table.")
    table[keys[-1]] = _value(text.strip())
    if ".".join(keys) in PATHS or isinstance(table[keys[-1]], dict):
        _absolute(data, Path.cwd())  # what the file gave is absolute already


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
