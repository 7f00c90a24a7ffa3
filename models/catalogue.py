"""The kinds of model there are, what a search may turn in each, how one is made, and what stands beside it.

Training, tracking and serving know of kinds only what is said here. A search turns the kinds in `SPACES`; from the
settings that it finds, `companions` names the models that run beside them (ablations and probes that show what a
model is worth, further models that take their settings over), and `combinations` makes blends of what was fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol, cast

import numpy as np
import numpy.typing as npt

from features.errors import ConfigError, unknown_name
from features.tabular.catalogue import ALL_GROUPS
from models.baselines import BaseRate, Recency, RFMLogistic
from models.boosting.gbdt import GBDT, GBDTSettings
from models.contract import Model, Settings, Vector
from models.ensembles.blend import Blend, cross_fitted
from models.sequence.settings import EncoderSettings, Network, ProbeSettings, SequenceModelSettings

Ints = npt.NDArray[np.int64]
Role = Literal["model", "ablation", "probe", "baseline"]


@dataclass(frozen=True)
class Kind:
    """How a kind of model is come by.

    Attributes:
        found: its class. Called only when the kind is wanted, so that what a class imports (PyTorch) is needed only
            by those who use it.
        made: an unfitted model from settings.
    """

    load: Callable[[], type[Model]]
    build: Callable[[Settings], Model]


@dataclass(frozen=True)
class Companion:
    """A model that a training fits as it stands, without a search.

    Attributes:
        name: of its run; no other model of the training has it.
        kind: in `KINDS`.
        settings: as `make` takes them.
        role: "model" (could be promoted, may be the best), "ablation" (a model robbed of something it may see), "probe"
            (a simple model on an embedding) or "baseline".
        said: a sentence for the reviewer.
        of: names of the models that this one is held against: "ablation of `gru`".
    """

    name: str
    kind: str
    settings: Settings
    role: Role
    note: str
    of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Combination:
    """A model made of fitted ones.

    Attributes:
        name: of its run.
        model: fitted.
        validation: (k,) its probabilities for the validation rows, none from a model that has seen the row.
        said: a sentence for the reviewer.
        settings: to record; what was learnt when it was combined.
        of: names of the models that it is held against: its members.
    """

    name: str
    model: Model
    validation: Vector
    note: str
    settings: Settings = field(default_factory=dict)
    of: tuple[str, ...] = ()


def _no_settings(kind: type[Model]) -> Kind:
    return Kind(lambda: kind, lambda settings: kind())


def _blend(settings: Settings) -> Model:
    """`members`: name → `kind` and `settings`; `seed`."""
    members = {name: make(each["kind"], each.get("settings", {})) for name, each in settings["members"].items()}
    return Blend(members, seed=settings.get("seed", 0))


def _embedding_gbdt(settings: Settings) -> Model:
    from models.ensembles.embedding_gbdt import EmbeddingGBDT, EmbeddingGBDTSettings

    return EmbeddingGBDT(EmbeddingGBDTSettings.from_dict(settings))


def _found(kind: str) -> type[Model]:
    """A class that is imported when it is wanted; by a statement, which is how packaging knows what a bento needs."""
    from models.ensembles.embedding_gbdt import EmbeddingGBDT
    from models.sequence.model import GRUModel, TransformerModel
    from models.sequence.probe import Probe

    classes: tuple[type[Model], ...] = (GRUModel, TransformerModel, Probe, EmbeddingGBDT)
    return next(each for each in classes if each.kind == kind)


def _sequence_model(settings: Settings, network: Network) -> Model:
    build: Any = _found(network)
    return cast(Model, build(SequenceModelSettings.from_dict(_own(settings) | {"network": network})))


def _probe(settings: Settings) -> Model:
    from models.sequence.probe import Probe

    return Probe(ProbeSettings.from_dict(_own(settings)))


def _own(settings: Settings) -> Settings:
    """What concerns a model without tabular features."""
    return {name: value for name, value in settings.items() if name != "features"}


KINDS: dict[str, Kind] = {
    GBDT.kind: Kind(lambda: GBDT, lambda settings: GBDT(GBDTSettings.from_dict(settings))),
    "gru": Kind(lambda: _found("gru"), lambda settings: _sequence_model(settings, "gru")),
    "transformer": Kind(lambda: _found("transformer"), lambda settings: _sequence_model(settings, "transformer")),
    "probe": Kind(lambda: _found("probe"), _probe),
    "embedding_gbdt": Kind(lambda: _found("embedding_gbdt"), _embedding_gbdt),
    Blend.kind: Kind(lambda: Blend, _blend),
    RFMLogistic.kind: _no_settings(RFMLogistic),
    Recency.kind: _no_settings(Recency),
    BaseRate.kind: _no_settings(BaseRate),
}
NETWORKS = ("gru", "transformer")
SEQUENCES = ("probe", *NETWORKS)  # kinds that read journeys step by step
ENCODER = tuple(setting.name for setting in fields(EncoderSettings))
BASELINES = (RFMLogistic.kind, Recency.kind, BaseRate.kind)
FEWEST_MEMBERS = 2  # a blend of one is that one

# Groups of features that a trial may leave out. Few rows can be worse off with them: on BPI 2012 the few that always
# stay did better alone than with any one of these (`experiments/LOG.md`, 2026-11-22).
OPTIONAL_GROUPS = ("trend", "rhythm", "day_rhythm", "sessions", "tenure", "variety", "returns", "calendar",
                   "touch", "order", "transitions", "open_work", "properties")  # fmt: skip

# Where a search starts: few features, then all of them; the rest is the sampler's.
_USUAL = {
    "categorical": False, "num_leaves": 8, "min_data_in_leaf": 40, "feature_fraction": 0.1, "bagging_fraction": 0.8,
    "lambda_l1": 0.001, "lambda_l2": 5.0, "path_smooth": 0.01, "extra_trees": True,
}  # fmt: skip
_ENCODERS = [
    {"hidden": 128, "objective": objective, "pretraining_epochs": 10, "dropout": 0.1} for objective in ("next", "both")
]
_TUNED = {"epochs": 6, "learning_rate": 2e-3, "weight_decay": 0.01, "head": 64, "head_dropout": 0.5}
STARTS: dict[str, list[dict[str, Any]]] = {
    GBDT.kind: [_USUAL | {f"use_{group}": used for group in OPTIONAL_GROUPS} for used in (False, True)],
    "probe": _ENCODERS,
    "gru": [_TUNED | encoder for encoder in _ENCODERS],
    "transformer": [_TUNED | encoder for encoder in _ENCODERS],
}


class Trial(Protocol):
    """The part of an Optuna trial that a search space needs."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int: ...  # noqa: D102
    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...  # noqa: D102
    def suggest_categorical(self, name: str, choices: list[Any]) -> Any: ...  # noqa: D102


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
    """Whether a searched kind could be made with these settings; nothing is imported or made for it.

    Args:
        kind: one of `SPACES`.
        settings: as an experiment file has them; what is missing is searched or takes its default.

    Raises:
        ConfigError: a setting that does not exist, or a value that it cannot have.
        ValidationError: the same, inside its `features` or `sequences`.
    """
    if kind == GBDT.kind:
        checked: Any = GBDTSettings.from_dict(settings)
    elif kind == "probe":
        checked = ProbeSettings.from_dict(_own(settings))
    else:
        checked = SequenceModelSettings.from_dict(_own(settings) | {"network": kind})
    for each in fields(checked):
        value, usual = getattr(checked, each.name), each.default
        if isinstance(usual, bool) != isinstance(value, bool) and isinstance(usual, bool | int | float):
            raise ConfigError(
                f"{each.name} is {value!r}; write {'true or false' if isinstance(usual, bool) else 'a number'}"
            )
        if isinstance(usual, int | float) and not isinstance(value, int | float):
            raise ConfigError(f"{each.name} is {value!r}; write a number, such as {usual}")
        if isinstance(usual, int) and isinstance(value, float):
            raise ConfigError(f"{each.name} is {value!r}; write a whole number, such as {usual}")


def search_space(kind: str, trial: Trial) -> Settings:
    """Suggest settings for one trial of a search; empty for a kind with nothing to turn."""
    return SPACES[kind](trial) if kind in SPACES else {}


def companions(searched: Mapping[str, Settings]) -> list[Companion]:
    """What runs beside the searched kinds.

    Args:
        searched: kind → the settings that its search ended with.
    """
    read = [kind for kind in SEQUENCES if kind in searched]
    beside = [ablation for kind in read for ablation in _ablations(kind, searched[kind])]
    if read:
        beside.append(_untrained(read[0], searched[read[0]]))
    if read and GBDT.kind in searched:
        encoder = {name: value for name, value in _own(searched[read[0]]).items() if name in ENCODER}
        encoder |= {"network": _network(read[0], searched[read[0]])}
        note = f"LightGBM with its best settings, on the tabular features and on an embedding as of `{read[0]}`."
        settings = {**searched[GBDT.kind], "encoder": encoder}
        beside.append(Companion("embedding_gbdt", "embedding_gbdt", settings, "model", note, (GBDT.kind,)))
    return beside


def _ablations(kind: str, settings: Settings) -> list[Companion]:
    """What the order and the times were worth to a sequence model: the same model without the one or the other."""
    robbed = {
        "shuffled": ({"order": "shuffled"}, "the contents of each journey's steps shuffled, their times left in place"),
        "without_time": ({"time": False}, "the order of the steps kept, and nothing of when they were"),
    }
    return [
        Companion(
            name=f"{kind}_{name}",
            kind=kind,
            settings=settings | {"sequences": settings.get("sequences", {}) | change},
            role="ablation",
            note=f"An ablation of `{kind}` with the same settings, {note}: what it loses is what that was worth.",
            of=(kind,),
        )
        for name, (change, note) in robbed.items()
    ]


def _untrained(kind: str, settings: Settings) -> Companion:
    """A linear probe of the encoder as it was drawn."""
    encoder = {name: value for name, value in _own(settings).items() if name in ENCODER}
    encoder |= {"network": _network(kind, settings), "objective": "none"}
    note = (
        f"A linear probe on the encoder of `{kind}` as it was drawn, without any training: what training has to beat."
    )
    return Companion("untrained_probe", "probe", encoder, "probe", note, (kind,))


def _network(kind: str, settings: Settings) -> str:
    return kind if kind in NETWORKS else str(settings.get("network", EncoderSettings.network))


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
    told = ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items())
    note = (
        f"A calibrated average of the log-odds of fitted models, with weights learnt on the validation rows ({told}); "
        "the validation figures are of weights learnt on the other folds."
    )
    settings = {"weights": weights, "bias": round(blend.bias_, 4)}
    return [Combination(Blend.kind, blend, scores, note, settings, tuple(members))]


def _gbdt_space(trial: Trial) -> Settings:
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


def _encoder_space(trial: Trial) -> Settings:
    return {
        "hidden": trial.suggest_categorical("hidden", [64, 128, 256]),
        "objective": trial.suggest_categorical("objective", ["next", "both", "coles", "none"]),
        "pretraining_epochs": trial.suggest_int("pretraining_epochs", 4, 24, log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.4),
    }


def _sequence_space(trial: Trial) -> Settings:
    return _encoder_space(trial) | {
        "epochs": trial.suggest_int("epochs", 2, 12, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 2e-4, 5e-3, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-3, 1.0, log=True),
        "head": trial.suggest_categorical("head", [0, 64]),
        "head_dropout": trial.suggest_float("head_dropout", 0.1, 0.7),
    }


# The kinds that a search may turn.
SPACES: dict[str, Callable[[Trial], Settings]] = {
    GBDT.kind: _gbdt_space,
    "gru": _sequence_space,
    "transformer": _sequence_space,
    "probe": _encoder_space,
}
