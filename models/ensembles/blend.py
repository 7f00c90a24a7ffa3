"""A blend: one calibrated probability from those of several models, each with a weight that is not negative.

    logit p = b + Σ_k w_k · logit p_k,    w_k ≥ 0

Stacking (D. H. Wolpert: "Stacked generalization", Neural Networks 5, 1992) by logistic regression with weights held at
or above zero (L. Breiman: "Stacked regressions", Machine Learning 24, 1996, found that what makes stacking work), on
predictions for rows that the members have not seen. A weak pull towards the plain average limits what few rows can
change. A member that adds nothing gets the weight 0 and is not computed.

>>> first = np.array([0.9, 0.8, 0.3, 0.1, 0.7, 0.2])
>>> weights, bias = stack(log_odds(np.column_stack([first, np.full(6, 0.5)])), np.array([1.0, 1, 0, 0, 0, 1]))
>>> bool((weights >= 0).all())
True
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, groupby
from operator import attrgetter
from pathlib import Path
from typing import Self, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.journeys.holdout import later_slice, stable_groups
from features.journeys.journeys import Snapshots
from models.calibration import sigmoid
from models.contract import (
    EmbeddingModel,
    Explainer,
    ExtraPackages,
    FeatureModel,
    Model,
    Reason,
    SavableModel,
    Vector,
    check_labels,
)

Ints = npt.NDArray[np.int64]
Split = tuple[Ints, Ints]  # rows to fit on, rows to predict

PULL = 1.0  # weight of the prior, in rows of log loss: each weight near 1 / k, shift near 0
N_FOLDS = 3
LATER_SHARE = 0.4
MEMBER_REASONS = 50  # of each member: a subject that is small with each may be large in the sum
SMALLEST, LARGEST = 1e-300, 1 - 2.0**-53


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
        return cls(members).with_weights(*stack(_columns(members, validation), np.asarray(y, dtype=np.float64)))

    def fit(self, snapshots: Snapshots, labels: npt.ArrayLike) -> Self:
        """Learn the weights on later rows of unseen customers, then fit every member on all rows."""
        y = check_labels(snapshots, labels)
        z, checked = np.zeros((len(y), len(self.members))), np.zeros(len(y), dtype=bool)
        for fit, check in _splits(snapshots, y, self.seed):
            for column, member in enumerate(self.members.values()):
                member.fit(snapshots.take(fit), y[fit])
                z[check, column] = log_odds(member.predict(snapshots.take(check)))
            checked[check] = True
        for member in self.members.values():
            member.fit(snapshots, y)
        return self.with_weights(*stack(z[checked], y[checked]))

    def predict(self, snapshots: Snapshots) -> Vector:
        """(n,) calibrated probabilities; members of weight 0 are not computed."""
        z = np.full(len(snapshots), self.bias_)
        for name, member in self._active_members().items():
            z += self.weights_[name] * log_odds(member.predict(snapshots))
        return sigmoid(z)

    def reasons(self, snapshots: Snapshots, top: int = 5) -> list[list[Reason]]:
        """The members' reasons times their weights, summed by subject, the strongest first.

        A member that is no `Explainer` adds nothing here, though it does to the log-odds.
        """
        by_member = [
            [_scaled(row, self.weights_[name]) for row in member.reasons(snapshots, MEMBER_REASONS)]
            for name, member in self._active_members().items()
            if isinstance(member, Explainer)
        ]
        if not by_member:
            return [[] for _ in range(len(snapshots))]
        return [_merged(chain.from_iterable(rows), top) for rows in zip(*by_member, strict=True)]

    def feature_table(self) -> pd.DataFrame:
        """The members' features, `name, group, meaning, importance` (their shares times the members' weights)."""
        of_features = {n: m for n, m in self._active_members().items() if isinstance(m, FeatureModel)}
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
        needs = (member.packages for member in self.members.values() if isinstance(member, ExtraPackages))
        return tuple(sorted(set(chain.from_iterable(needs))))

    def member_folders(self) -> dict[str, SavableModel]:
        """Folder name → member."""
        return {f"member_{number}": member for number, member in enumerate(self.members.values())}

    def save(self, folder: Path) -> None:
        """Write `blend.json`; `models.saving` writes the members."""
        members = [{"name": name, "folder": f"member_{number}"} for number, name in enumerate(self.members)]
        data = {"members": members, "weights": self.weights_, "bias": self.bias_, "seed": self.seed}
        (folder / "blend.json").write_text(json.dumps(data, indent=1), encoding="utf-8")

    @classmethod
    def load_with(cls, folder: Path, load_member: Callable[[Path], SavableModel]) -> Self:
        """Read what `save` wrote."""
        data = json.loads((folder / "blend.json").read_text(encoding="utf-8"))
        members = {each["name"]: cast(Model, load_member(folder / each["folder"])) for each in data["members"]}
        return cls(members, seed=data["seed"]).with_weights([data["weights"][name] for name in members], data["bias"])

    def with_weights(self, weights: npt.ArrayLike, bias: float) -> Self:
        """This blend with (k,) weights of its members, in their order, and a bias."""
        self.weights_ = dict(zip(self.members, np.asarray(weights, dtype=np.float64).tolist(), strict=True))
        self.bias_ = float(bias)
        if embedding := [name for name, member in self.members.items() if isinstance(member, EmbeddingModel)]:
            member: EmbeddingModel = self.members[max(embedding, key=self.weights_.__getitem__)]  # type: ignore[assignment]
            self.version, self.embed = member.version, member.embed
        return self

    def _active_members(self) -> dict[str, Model]:
        """The members that have a weight."""
        return {name: member for name, member in self.members.items() if self.weights_[name] > 0}


def stack(z: npt.NDArray[np.float64], y: Vector) -> tuple[Vector, float]:
    """(k,) weights ≥ 0 that make the least log loss of (n, k) log-odds for (n,) labels, and the shift b.

    The shift that fits these rows best is left out: it would carry the base rate of their season, which no member knew
    when it was fitted, into every later one (on Online Retail it cost .010 of Brier score). Members are calibrated on
    their own past; b leaves their mean log-odds where it is, whatever the weights add up to.
    """
    from scipy.optimize import minimize  # imported here, as only a fit needs it

    even = np.append(np.full(z.shape[1], 1 / z.shape[1]), 0.0)
    x = np.column_stack((z, np.ones(len(z))))  # (n, k + 1)

    def loss(theta: Vector) -> tuple[float, Vector]:
        blended, distance = x @ theta, theta - even
        value = float(np.sum(np.logaddexp(0.0, blended) - y * blended) + PULL * distance @ distance)
        return value, np.asarray((sigmoid(blended) - y) @ x + 2 * PULL * distance)

    bounds = [(0.0, None)] * z.shape[1] + [(None, None)]
    fit = minimize(loss, even, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-12, "gtol": 1e-8})
    weights, levels = np.asarray(fit.x[:-1]), z.mean(axis=0)
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
        held_out = folds == fold
        learn = held_out if held_out.all() else ~held_out
        weights, bias = stack(z[learn], labels[learn])
        blended[held_out] = z[held_out] @ weights + bias
    return sigmoid(blended)


def log_odds(p: npt.ArrayLike) -> Vector:
    """The logarithm of p / (1 − p), finite for every float64 from 0 to 1 (`scipy.special.logit` is infinite there)."""
    inside = np.clip(np.asarray(p, dtype=np.float64), SMALLEST, LARGEST)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def _columns(members: Mapping[str, Model] | Sequence[str], validation: Mapping[str, Vector]) -> npt.NDArray[np.float64]:
    """(k, members) log-odds."""
    return np.column_stack([log_odds(validation[name]) for name in members])


def _splits(snapshots: Snapshots, y: Vector, seed: int) -> list[Split]:
    """Later rows of other customers; other customers alone where that leaves nothing to learn from."""
    customers, cutoffs = snapshots.customer_ids, snapshots.cutoff
    splits: list[Split] = []
    if cutoffs.min() != cutoffs.max():
        splits = [(part.fit, part.later) for part in later_slice(customers, cutoffs, LATER_SHARE, N_FOLDS, seed)]
    if not splits or not all(_usable(split, y) for split in splits):
        group = stable_groups(customers, N_FOLDS, seed)
        splits = [(np.flatnonzero(group != fold), np.flatnonzero(group == fold)) for fold in range(N_FOLDS)]
    return [split for split in splits if _usable(split, y)]


def _usable(split: Split, y: Vector) -> bool:
    fit, check = split
    return len(check) > 0 and len(np.unique(y[fit])) == 2


def _scaled(reasons: list[Reason], weight: float) -> list[Reason]:
    return [replace(reason, contribution=weight * reason.contribution) for reason in reasons]


def _merged(reasons: Iterable[Reason], top: int) -> list[Reason]:
    """One reason a subject, in the words of the one that moved it most in the sum's direction."""
    merged = []
    for _, group in groupby(sorted(reasons, key=attrgetter("subject")), key=attrgetter("subject")):
        same = list(group)
        total = sum(reason.contribution for reason in same)
        strongest = max(same, key=lambda reason: reason.contribution * np.sign(total))
        merged.append(replace(strongest, contribution=total))
    return sorted((reason for reason in merged if reason.contribution), key=lambda reason: -abs(reason.contribution))[
        :top
    ]
