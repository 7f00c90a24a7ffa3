"""A blend: one calibrated probability from those of several models, each with a weight that is not negative.

    logit p = b + Σ_k w_k · logit p_k,    w_k ≥ 0

Stacking (D. H. Wolpert: "Stacked generalization", Neural Networks 5, 1992) by logistic regression with weights held at
or above zero (L. Breiman: "Stacked regressions", Machine Learning 24, 1996, found that what makes stacking work), on
predictions for rows that the members have not seen. A weak pull towards the plain average keeps few rows from saying
much. A member that adds nothing gets the weight 0 and is not asked.

>>> first = np.array([0.9, 0.8, 0.3, 0.1, 0.7, 0.2])
>>> weights, bias = stack(log_odds(np.column_stack([first, np.full(6, 0.5)])), np.array([1.0, 1, 0, 0, 0, 1]))
>>> bool((weights >= 0).all())
True
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Self, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.journeys.holdout import later_slice, stable_groups
from features.journeys.journeys import Snapshots
from models.calibration import sigmoid
from models.contract import EmbeddingModel, Explainer, ExtraPackages, FeatureModel, Model, Reason, Vector, check_labels

Ints = npt.NDArray[np.int64]
Split = tuple[Ints, Ints]  # rows to fit on, rows to predict

PULL = 1.0  # weight of the prior, in rows of log loss: each weight near 1 / k, shift near 0
N_FOLDS = 3
LATER_SHARE = 0.4
EVERY_SUBJECT = 50  # reasons asked of a member: a subject that is small with each may be large with all
NEAREST_ZERO, NEAREST_ONE = 1e-300, 1 - 2.0**-53


class Blend:
    """Several models behind the contract of `models.contract.Model`.

    It also embeds (`models.contract.EmbeddingModel`) where a member does: by the member of largest weight that does.

    Args:
        members: by name, fitted or not.
        seed: of the split of customers when the blend is fitted on its own.
    """

    kind = "blend"
    version: str
    embed: Callable[[Snapshots], npt.NDArray[np.float32]]

    def __init__(self, members: Mapping[str, Model], *, seed: int = 0) -> None:
        self.members = dict(members)
        self.seed = seed

    @classmethod
    def of(cls, members: Mapping[str, Model], validation: Mapping[str, Vector], y: npt.ArrayLike) -> Self:
        """A blend of fitted members, none of which is fitted again.

        Args:
            members: fitted on all rows.
            validation: of each member, (k,) probabilities for rows that it (its like, fitted on a fold) has not seen.
            y: (k,) labels of those rows.
        """
        return cls(members)._weighted(*stack(_columns(members, validation), np.asarray(y, dtype=np.float64)))

    def fit(self, snapshots: Snapshots, labels: npt.ArrayLike) -> Self:
        """Learn the weights on later rows of unseen customers, then fit every member on all rows."""
        y = check_labels(snapshots, labels)
        z, seen = np.zeros((len(y), len(self.members))), np.zeros(len(y), dtype=bool)
        for fit, check in _splits(snapshots, y, self.seed):
            for column, member in enumerate(self.members.values()):
                member.fit(snapshots.take(fit), y[fit])
                z[check, column] = log_odds(member.predict(snapshots.take(check)))
            seen[check] = True
        for member in self.members.values():
            member.fit(snapshots, y)
        return self._weighted(*stack(z[seen], y[seen]))

    def predict(self, snapshots: Snapshots) -> Vector:
        """(n,) calibrated probabilities; members of weight 0 are not asked."""
        z = np.full(len(snapshots), self.bias_)
        for name, member in self._asked().items():
            z += self.weights_[name] * log_odds(member.predict(snapshots))
        return sigmoid(z)

    def reasons(self, snapshots: Snapshots, top: int = 5) -> list[list[Reason]]:
        """The members' reasons times their weights, summed by subject, the strongest first.

        A member that cannot say why leaves its share of the log-odds untold.
        """
        told = [
            [_times(self.weights_[name], row) for row in member.reasons(snapshots, EVERY_SUBJECT)]
            for name, member in self._asked().items()
            if isinstance(member, Explainer)
        ]
        return [_merged([reason for row in rows for reason in row], top) for rows in zip(*told, strict=True)] or [
            [] for _ in range(len(snapshots))
        ]

    def feature_table(self) -> pd.DataFrame:
        """The members' features, `name, group, meaning, importance` (their shares times the members' weights)."""
        of_features = {n: m for n, m in self._asked().items() if isinstance(m, FeatureModel)}
        total = sum(self.weights_[name] for name in of_features)
        tables = [
            table.assign(importance=table["importance"] * (self.weights_[name] / total))
            for name, member in of_features.items()
            if len(table := member.feature_table())
        ]
        keys = ["name", "group", "meaning"]
        if not tables:
            return pd.DataFrame(columns=[*keys, "importance"])
        return pd.concat(tables).groupby(keys, sort=False)["importance"].sum().reset_index()

    @property
    def packages(self) -> tuple[str, ...]:
        """What the members need beyond what every model needs."""
        found = (member.packages for member in self.members.values() if isinstance(member, ExtraPackages))
        return tuple(sorted({name for names in found for name in names}))

    def save(self, folder: Path) -> None:
        """Write `blend.json` and each member into a folder of its own."""
        from models.saving import save_model

        members = [{"name": name, "folder": f"member_{number}"} for number, name in enumerate(self.members)]
        for member in members:
            save_model(self.members[member["name"]], folder / member["folder"])
        data = {"members": members, "weights": self.weights_, "bias": self.bias_, "seed": self.seed}
        (folder / "blend.json").write_text(json.dumps(data, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        from models.saving import load_model

        data = json.loads((folder / "blend.json").read_text(encoding="utf-8"))
        names = [member["name"] for member in data["members"]]
        members = {name: cast(Model, load_model(folder / f"member_{number}")) for number, name in enumerate(names)}
        return cls(members, seed=data["seed"])._weighted([data["weights"][name] for name in names], data["bias"])

    def _weighted(self, weights: npt.ArrayLike, bias: float) -> Self:
        self.weights_ = dict(zip(self.members, np.asarray(weights, dtype=np.float64).tolist(), strict=True))
        self.bias_ = float(bias)
        if embedding := [name for name, member in self.members.items() if isinstance(member, EmbeddingModel)]:
            member: EmbeddingModel = self.members[max(embedding, key=self.weights_.__getitem__)]  # type: ignore[assignment]
            self.version, self.embed = member.version, member.embed
        return self

    def _asked(self) -> dict[str, Model]:
        return {name: member for name, member in self.members.items() if self.weights_[name] > 0}


def stack(z: npt.NDArray[np.float64], y: Vector) -> tuple[Vector, float]:
    """(k,) weights ≥ 0 that make the least log loss of (n, k) log-odds for (n,) labels, and the shift b.

    The shift that fits these rows best is left out: it would carry the base rate of their season, which no member knew
    when it was fitted, into every later one (on Online Retail it cost .010 of Brier score). Members are calibrated on
    their own past; b leaves their mean log-odds where it is, whatever the weights add up to.
    """
    from scipy.optimize import minimize  # which only a fit needs

    even = np.append(np.full(z.shape[1], 1 / z.shape[1]), 0.0)
    x = np.column_stack((z, np.ones(len(z))))  # (n, k + 1)

    def loss(theta: Vector) -> tuple[float, Vector]:
        blended, away = x @ theta, theta - even
        value = float(np.sum(np.logaddexp(0.0, blended) - y * blended) + PULL * away @ away)
        return value, np.asarray((sigmoid(blended) - y) @ x + 2 * PULL * away)

    bounds = [(0.0, None)] * z.shape[1] + [(None, None)]
    found = minimize(loss, even, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-12, "gtol": 1e-8})
    weights, levels = np.asarray(found.x[:-1]), z.mean(axis=0)
    total = float(weights.sum())
    level = float(weights @ levels) / total if total > 0 else float(levels.mean())
    return weights, level - float(weights @ levels)


def cross_fitted(members: Sequence[str], validation: Mapping[str, Vector], y: npt.ArrayLike, folds: Ints) -> Vector:
    """(k,) probabilities of the blend, those of each fold with weights learnt on the other folds.

    Args:
        members: names in `validation`.
        validation: of each member, (k,) probabilities for rows that it has not seen.
        y: (k,) labels.
        folds: (k,) which fold each row is in; with one fold only, the weights have seen the rows.
    """
    z, labels, blended = _columns(members, validation), np.asarray(y, dtype=np.float64), np.zeros(len(folds))
    for fold in np.unique(folds):
        own = folds == fold
        weights, bias = stack(z[own if own.all() else ~own], labels[own if own.all() else ~own])
        blended[own] = z[own] @ weights + bias
    return sigmoid(blended)


def log_odds(p: npt.ArrayLike) -> Vector:
    """The logarithm of p / (1 − p), finite for every float64 from 0 to 1."""
    kept = np.clip(np.asarray(p, dtype=np.float64), NEAREST_ZERO, NEAREST_ONE)
    return np.asarray(np.log(kept) - np.log1p(-kept))


def _columns(members: Mapping[str, Model] | Sequence[str], validation: Mapping[str, Vector]) -> npt.NDArray[np.float64]:
    """(k, members) log-odds."""
    return np.column_stack([log_odds(validation[name]) for name in members])


def _splits(snapshots: Snapshots, y: Vector, seed: int) -> list[Split]:
    """Later rows of other customers; other customers alone where that leaves nothing to learn from."""
    who, when = snapshots.customer_ids, snapshots.cutoff
    splits: list[Split] = []
    if when.min() != when.max():
        splits = [(part.fit, part.later) for part in later_slice(who, when, LATER_SHARE, N_FOLDS, seed)]
    if not splits or not all(_usable(split, y) for split in splits):
        group = stable_groups(who, N_FOLDS, seed)
        splits = [(np.flatnonzero(group != own), np.flatnonzero(group == own)) for own in range(N_FOLDS)]
    return [split for split in splits if _usable(split, y)]


def _usable(split: Split, y: Vector) -> bool:
    fit, check = split
    return len(check) > 0 and len(np.unique(y[fit])) == 2


def _times(weight: float, reasons: list[Reason]) -> list[Reason]:
    return [Reason(each.subject, each.text, each.feature, each.value, weight * each.contribution) for each in reasons]


def _merged(reasons: list[Reason], top: int) -> list[Reason]:
    """One reason a subject, told by the one that pulled hardest in the sum's direction."""
    merged = []
    for _, group in groupby(sorted(reasons, key=lambda each: each.subject), key=lambda each: each.subject):
        own = list(group)
        total = sum(each.contribution for each in own)
        told = max(own, key=lambda each: each.contribution * np.sign(total))
        merged.append(Reason(told.subject, told.text, told.feature, told.value, total))
    return sorted((each for each in merged if each.contribution), key=lambda each: -abs(each.contribution))[:top]
