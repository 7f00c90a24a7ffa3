"""The catalogue of models: one entry for each kind.

An entry says how a model of the kind is built from settings, what a search may tune, where the search starts, and which
models are fitted beside it (ablations and probes that show what it is worth, models on top of it). Training, tracking
and serving know of kinds only what stands here. `docs/architecture/model_kind.md` adds a kind step by step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from features.errors import ConfigError, unknown_name
from features.tabular.catalogue import ALL_GROUPS
from models.baselines import BaseRate, Recency, RFMLogistic
from models.boosting.gbdt import GBDT, GBDTSettings
from models.contract import Model, Settings, Vector
from models.ensembles.blend import Blend, cross_fitted
from models.sequence.settings import EncoderSettings, ProbeSettings, SequenceModelSettings

Ints = npt.NDArray[np.int64]
Role = Literal["model", "ablation", "probe", "baseline"]

BASELINES = (RFMLogistic.kind, Recency.kind, BaseRate.kind)
SEQUENCE_KINDS = ("probe", "gru", "transformer")  # they read journeys step by step
ENCODER_SETTINGS = tuple(setting.name for setting in fields(EncoderSettings))
FEWEST_MEMBERS = 2  # a blend of one model is that model
COMPANION_ORDER = ("ablation", "probe", "model", "baseline")


@dataclass(frozen=True)
class Companion:
    """A model that a training fits with fixed settings, without a search.

    Attributes:
        name: of its run, unique in the training.
        kind: in `KINDS`.
        settings: as `make` takes them.
        role: "model" (may be the best and be promoted), "ablation" (a model with something removed), "probe" (a simple
            model on an embedding) or "baseline".
        note: a sentence for the reviewer.
        of: names of the models that this one is compared with: "ablation of `gru`".
    """

    name: str
    kind: str
    settings: Settings
    role: Role
    note: str
    of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Combination:
    """A model made of fitted models.

    Attributes:
        name: of its run.
        model: fitted.
        validation: (k,) its probabilities for the validation rows, none from a model that has seen the row.
        note: a sentence for the reviewer.
        settings: to record, such as the weights.
        of: names of the models that it is compared with: its members.
    """

    name: str
    model: Model
    validation: Vector
    note: str
    settings: Settings = field(default_factory=dict)
    of: tuple[str, ...] = ()


class SpaceTrial(Protocol):
    """The part of an Optuna trial that a search space needs."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int: ...  # noqa: D102
    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...  # noqa: D102
    def suggest_categorical(self, name: str, choices: list[Any]) -> Any: ...  # noqa: D102


@dataclass(frozen=True)
class Kind:
    """The entry of one kind of model.

    Attributes:
        load_class: returns the class. A function, so that a heavy import (PyTorch) happens only where the kind is used.
        build: an unfitted model from settings.
        read_settings: settings → the kind's settings object, which refuses unknown names; nothing else is imported for
            it. None for a kind without settings.
        search_space: trial → settings for it. None for a kind that is not searched.
        starts: values of the first trials' parameters; the others are the sampler's.
        companions: (kind, settings of every searched kind) → what is fitted beside this kind.
    """

    load_class: Callable[[], type[Any]]
    build: Callable[[Settings], Model]
    read_settings: Callable[[Settings], Any] | None = None
    search_space: Callable[[SpaceTrial], Settings] | None = None
    starts: tuple[Settings, ...] = ()
    companions: Callable[[str, Mapping[str, Settings]], list[Companion]] = lambda kind, searched: []


def make(kind: str, settings: Settings) -> Model:
    """A new, unfitted model.

    Args:
        kind: one of `KINDS`.
        settings: as `search_space` returns them, or a part; `features` holds settings of the tabular features.

    Raises:
        ConfigError: for a kind or a setting that does not exist.
    """
    if kind not in KINDS:
        raise ConfigError(f"There is {unknown_name('model of kind', kind, KINDS)}.")
    return KINDS[kind].build(settings)


def check_settings(kind: str, settings: Settings) -> None:
    """Check settings of a kind; no model is built for it.

    Args:
        kind: one of `KINDS`.
        settings: as an experiment file has them; what is missing is searched or takes its default.

    Raises:
        ConfigError: a setting that does not exist, or a value that it cannot have.
        ValidationError: the same, inside its `features` or `sequences`.
    """
    read_settings = KINDS[kind].read_settings
    checked = read_settings(settings) if read_settings is not None else None
    for setting in fields(checked) if checked is not None else ():
        value, default = getattr(checked, setting.name), setting.default
        if isinstance(default, bool) != isinstance(value, bool) and isinstance(default, bool | int | float):
            expected = "true or false" if isinstance(default, bool) else "a number"
            raise ConfigError(f"{setting.name} is {value!r}; write {expected}")
        if isinstance(default, int | float) and not isinstance(value, int | float):
            raise ConfigError(f"{setting.name} is {value!r}; write a number, such as {default}")
        if isinstance(default, int) and isinstance(value, float):
            raise ConfigError(f"{setting.name} is {value!r}; write a whole number, such as {default}")


def searchable_kinds() -> list[str]:
    """The kinds that a search can tune."""
    return [name for name, kind in KINDS.items() if kind.search_space is not None]


def search_space(kind: str, trial: SpaceTrial) -> Settings:
    """Suggest settings for one trial of a search; empty for a kind that is not searched."""
    space = KINDS[kind].search_space
    return space(trial) if space is not None else {}


def search_starts(kind: str) -> list[Settings]:
    """Values of the parameters in the first trials of a search."""
    return list(KINDS[kind].starts)


def companions(searched: Mapping[str, Settings]) -> list[Companion]:
    """The models to fit beside the searched ones: ablations, probes, further models.

    Args:
        searched: kind → the settings that its search ended with.
    """
    models_to_fit = [
        companion
        for name in (*SEQUENCE_KINDS, *(name for name in KINDS if name not in SEQUENCE_KINDS))
        if name in searched
        for companion in KINDS[name].companions(name, searched)
    ]
    return sorted(models_to_fit, key=lambda companion: COMPANION_ORDER.index(companion.role))


def combinations(
    members: Mapping[str, Model], validation: Mapping[str, Vector], y: npt.ArrayLike, folds: Ints
) -> list[Combination]:
    """Blends of fitted models.

    Args:
        members: name → a model of role "model", fitted on all training rows.
        validation: name → (k,) probabilities for the check rows, from models of the folds.
        y: (k,) labels of the check rows.
        folds: (k,) the fold in which each row was checked.
    """
    if len(members) < FEWEST_MEMBERS:
        return []
    blend = Blend.of(members, validation, y)
    scores = cross_fitted(tuple(members), validation, y, folds)
    weights = {name: round(weight, 4) for name, weight in blend.weights_.items()}
    listed = ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items())
    note = (
        f"A calibrated average of the log-odds of fitted models, with weights learnt on the validation rows "
        f"({listed}); the validation figures are of weights learnt on the other folds."
    )
    settings = {"weights": weights, "bias": round(blend.bias_, 4)}
    return [Combination(Blend.kind, blend, scores, note, settings, tuple(members))]


# --- gbdt, and LightGBM on an embedding ---

# Groups of features that a trial may leave out. Few rows can be worse off with them: on BPI 2012 the few that always
# stay did better alone than with any one of these (`experiments/LOG.md`, 2026-11-22).
OPTIONAL_GROUPS = ("trend", "rhythm", "day_rhythm", "sessions", "tenure", "variety", "returns", "calendar",
                   "touch", "order", "transitions", "open_work", "properties")  # fmt: skip

FEW_FEATURES: Settings = {
    "categorical": False, "num_leaves": 8, "min_data_in_leaf": 40, "feature_fraction": 0.1, "bagging_fraction": 0.8,
    "lambda_l1": 0.001, "lambda_l2": 5.0, "path_smooth": 0.01, "extra_trees": True,
}  # fmt: skip
GBDT_STARTS = tuple(FEW_FEATURES | {f"use_{group}": used for group in OPTIONAL_GROUPS} for used in (False, True))


def _gbdt_space(trial: SpaceTrial) -> Settings:
    dropped = {group for group in OPTIONAL_GROUPS if not trial.suggest_categorical(f"use_{group}", [True, False])}
    return {
        "categorical": trial.suggest_categorical("categorical", [False, True]),
        "num_leaves": trial.suggest_int("num_leaves", 3, 32, log=True),
        "min_data_in_leaf": trial.suggest_int("min_data_in_leaf", 10, 200, log=True),
        "feature_fraction": trial.suggest_float("feature_fraction", 0.03, 0.5, log=True),
        "bagging_fraction": trial.suggest_float("bagging_fraction", 0.5, 1.0),
        "lambda_l1": trial.suggest_float("lambda_l1", 1e-3, 10.0, log=True),
        "lambda_l2": trial.suggest_float("lambda_l2", 1e-2, 100.0, log=True),
        "path_smooth": trial.suggest_float("path_smooth", 1e-2, 30.0, log=True),
        "extra_trees": trial.suggest_categorical("extra_trees", [True, False]),
        "features": {"groups": [group for group in ALL_GROUPS if group not in dropped]},
    }


def _gbdt_companions(kind: str, searched: Mapping[str, Settings]) -> list[Companion]:
    """LightGBM again, with an embedding beside the tabular features, where an encoder was searched."""
    encoder_kind = _first_sequence_kind(searched)
    if encoder_kind is None:
        return []
    note = f"LightGBM with its best settings, on the tabular features and on an embedding as of `{encoder_kind}`."
    settings = {**searched[kind], "encoder": _encoder_settings(encoder_kind, searched[encoder_kind])}
    return [Companion("embedding_gbdt", "embedding_gbdt", settings, "model", note, (kind,))]


def _embedding_gbdt_class() -> type[Any]:
    from models.ensembles.embedding_gbdt import EmbeddingGBDT  # takes safetensors along

    return EmbeddingGBDT


def _embedding_gbdt(settings: Settings) -> Model:
    from models.ensembles.embedding_gbdt import EmbeddingGBDT, EmbeddingGBDTSettings

    return EmbeddingGBDT(EmbeddingGBDTSettings.from_dict(settings))


# --- sequence models ---

ENCODER_STARTS = tuple(
    {"hidden": 128, "objective": objective, "pretraining_epochs": 10, "dropout": 0.1} for objective in ("next", "both")
)
FINE_TUNING: Settings = {"epochs": 6, "learning_rate": 2e-3, "weight_decay": 0.01, "head": 64, "head_dropout": 0.5}
SEQUENCE_STARTS = tuple(FINE_TUNING | encoder for encoder in ENCODER_STARTS)


def _encoder_space(trial: SpaceTrial) -> Settings:
    return {
        "hidden": trial.suggest_categorical("hidden", [64, 128, 256]),
        "objective": trial.suggest_categorical("objective", ["next", "both", "coles", "none"]),
        "pretraining_epochs": trial.suggest_int("pretraining_epochs", 4, 24, log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.4),
    }


def _sequence_space(trial: SpaceTrial) -> Settings:
    return _encoder_space(trial) | {
        "epochs": trial.suggest_int("epochs", 2, 12, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 2e-4, 5e-3, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-3, 1.0, log=True),
        "head": trial.suggest_categorical("head", [0, 64]),
        "head_dropout": trial.suggest_float("head_dropout", 0.1, 0.7),
    }


def _sequence_companions(kind: str, searched: Mapping[str, Settings]) -> list[Companion]:
    """What order, times and training are worth to a sequence model."""
    settings = searched[kind]
    removals = {
        "shuffled": ({"order": "shuffled"}, "the contents of each journey's steps shuffled, their times left in place"),
        "without_time": ({"time": False}, "the order of the steps kept, and nothing of when they were"),
    }
    out = [
        Companion(
            name=f"{kind}_{name}",
            kind=kind,
            settings=settings | {"sequences": settings.get("sequences", {}) | change},
            role="ablation",
            note=f"An ablation of `{kind}` with the same settings, {words}: what it loses is what that was worth.",
            of=(kind,),
        )
        for name, (change, words) in removals.items()
    ]
    if kind == _first_sequence_kind(searched):
        encoder = _encoder_settings(kind, settings) | {"objective": "none"}
        note = f"A linear probe on the encoder of `{kind}` with its random initial weights: what training has to beat."
        out.append(Companion("untrained_probe", "probe", encoder, "probe", note, (kind,)))
    return out


def _first_sequence_kind(searched: Mapping[str, Settings]) -> str | None:
    return next((kind for kind in SEQUENCE_KINDS if kind in searched), None)


def _encoder_settings(kind: str, settings: Settings) -> Settings:
    """The part of a sequence model's settings that concerns its encoder."""
    network = settings.get("network", EncoderSettings.network) if kind == "probe" else kind
    return {name: value for name, value in settings.items() if name in ENCODER_SETTINGS} | {"network": network}


def _without_features(settings: Settings) -> Settings:
    """Sequence models have no tabular features."""
    return {name: value for name, value in settings.items() if name != "features"}


def _read_network(network: str, settings: Settings) -> SequenceModelSettings:
    return SequenceModelSettings.from_dict(_without_features(settings) | {"network": network})


def _read_probe(settings: Settings) -> ProbeSettings:
    return ProbeSettings.from_dict(_without_features(settings))


# Import statements inside the functions, and not names of modules, as packaging follows statements to find what a bento
# needs. The modules take safetensors along, and a Transformer's fit PyTorch, which other kinds do without.
def _gru_class() -> type[Any]:
    from models.sequence.model import GRUModel

    return GRUModel


def _transformer_class() -> type[Any]:
    from models.sequence.model import TransformerModel

    return TransformerModel


def _probe_class() -> type[Any]:
    from models.sequence.probe import Probe

    return Probe


# --- the catalogue ---


def _blend(settings: Settings) -> Model:
    """`members`: name → `kind` and `settings`; `seed`."""
    members = {name: make(each["kind"], each.get("settings", {})) for name, each in settings["members"].items()}
    return Blend(members, seed=settings.get("seed", 0))


def _with_settings(load_class: Callable[[], type[Any]], read_settings: Callable[[Settings], Any], **more: Any) -> Kind:
    """The entry of a kind whose class takes its settings object."""
    return Kind(load_class, lambda settings: load_class()(read_settings(settings)), read_settings, **more)


def _baseline(model_class: type[Model]) -> Kind:
    return Kind(lambda: model_class, lambda settings: model_class())


_NETWORK: dict[str, Any] = {
    "search_space": _sequence_space, "starts": SEQUENCE_STARTS, "companions": _sequence_companions,
}  # fmt: skip
KINDS: dict[str, Kind] = {
    "gbdt": _with_settings(
        lambda: GBDT,
        GBDTSettings.from_dict,
        search_space=_gbdt_space,
        starts=GBDT_STARTS,
        companions=_gbdt_companions,
    ),
    "gru": _with_settings(_gru_class, partial(_read_network, "gru"), **_NETWORK),
    "transformer": _with_settings(_transformer_class, partial(_read_network, "transformer"), **_NETWORK),
    "probe": _with_settings(
        _probe_class,
        _read_probe,
        search_space=_encoder_space,
        starts=ENCODER_STARTS,
        companions=_sequence_companions,
    ),
    "embedding_gbdt": Kind(_embedding_gbdt_class, _embedding_gbdt),
    "blend": Kind(lambda: Blend, _blend),
    "rfm": _baseline(RFMLogistic),
    "recency": _baseline(Recency),
    "base_rate": _baseline(BaseRate),
}
