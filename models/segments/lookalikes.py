"""Look-alikes: the customers nearest to a list of seeds, by exact comparison of up to a million vectors.

    vectors = Lookalikes().fit(embedder.embed(snapshots), embedder.version)
    vectors.nearest([17, 204, 3], top=100)       # place, similarity; without the seeds themselves

Results are places in the vectors, or keyed hashes of identifiers (HMAC-SHA256, RFC 2104): only with the key can a hash
be traced to a customer. The key is never saved with the vectors (`features.privacy.keyed_hashes`). Vectors of two
versions of an encoder are not comparable and are never mixed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field
from safetensors.numpy import load_file, save_file

from features.errors import ConfigError, DataError
from features.privacy.keyed_hashes import checked_key, key_id, keyed_hash
from features.settings import Section

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint8]

MOST_VECTORS = 1_000_000
BLOCK_CELLS = 4_000_000  # rows × seeds in one product
SPARE = 64  # candidates beyond `top` that are ranked again in double precision, which can change the order
FORMAT = 1


class LookalikeSettings(Section):
    """`[segments.lookalikes]`: the measure of nearness.

    Attributes:
        metric: "cosine" of the angle, or "euclidean" distance.
        standardise: scale every dimension to mean 0 and variance 1 first.
        form: "mean": nearest to the mean of the seeds; "max": nearest to any of them.
    """

    metric: Literal["cosine", "euclidean"] = "cosine"
    standardise: bool = True
    form: Literal["mean", "max"] = Field(default="mean")


class Lookalikes:
    """Vectors of customers, with a search for the nearest ones."""

    def __init__(self, settings: LookalikeSettings | None = None) -> None:
        self.settings = settings or LookalikeSettings()

    def fit(
        self, vectors: npt.ArrayLike, version: str, ids: Sequence[str] | None = None, key: bytes | None = None
    ) -> Self:
        """Keep the vectors, ready for comparison.

        Args:
            vectors: (n, d) one for each customer, n at most a million.
            version: of their encoder.
            ids: (n,) identifiers, kept as keyed hashes only; None: places only.
            key: for the hashes, at least 16 bytes (`new_key`).

        Raises:
            DataError: no vectors, too many, values that are not finite, identifiers that do not match or repeat.
            ConfigError: identifiers without a key, or a short key.
        """
        x = np.ascontiguousarray(vectors, np.float32)
        if x.ndim != 2 or not x.size:
            raise DataError(f"the vectors are {x.shape}: give one of equal length for each customer, (n, d)")
        if len(x) > MOST_VECTORS:
            raise DataError(f"{len(x):,} vectors: comparing all is meant for {MOST_VECTORS:,} at most; give fewer")
        if (bad := ~np.isfinite(x).all(axis=1)).any():
            raise DataError(f"the vectors of rows {np.flatnonzero(bad)[:3].tolist()} are not finite: leave them out")
        self.version = version
        standardise = self.settings.standardise
        self.mean_ = x.mean(axis=0, dtype=np.float64) if standardise else np.zeros(x.shape[1])
        spread = x.std(axis=0, dtype=np.float64) if standardise else np.ones(x.shape[1])
        self.scale_ = np.where(spread > 1e-9, spread, 1.0)
        self.vectors_ = self._prepared(x)
        self.hashes_, self.key_mark_ = None, ""
        if ids is not None:
            self.hashes_, self.key_mark_ = _hashed(ids, len(x), key)
        return self

    def nearest(self, seeds: npt.ArrayLike, top: int = 100, form: Literal["mean", "max"] | None = None) -> pd.DataFrame:
        """The `top` customers nearest to the seeds, without the seeds.

        Args:
            seeds: (s,) places, as the vectors were given to `fit`.
            top: number of customers.
            form: "mean" or "max" of the seeds; None: as in the settings.

        Returns:
            Nearest first: place, similarity (cosine, for "mean" the mean of those to all seeds), or with the Euclidean
            metric distance (to the mean, or to the nearest seed); and hash where identifiers were given.

        Raises:
            DataError: no seeds, or places outside the vectors.
        """
        places = np.unique(np.asarray(seeds, np.int64).reshape(-1))
        if not len(places) or places[0] < 0 or places[-1] >= len(self.vectors_):
            raise DataError(f"seeds must be places from 0 to {len(self.vectors_) - 1}, at least one")
        return self._ranked(self.vectors_[places], places, top, form)

    def nearest_to(
        self, vectors: npt.ArrayLike, version: str, top: int = 100, form: Literal["mean", "max"] | None = None
    ) -> pd.DataFrame:
        """The same for seeds that are not among the vectors: (s, d) vectors by the same version of the encoder.

        Raises:
            DataError: vectors of another version, or of another length.
        """
        if version != self.version:
            raise DataError(
                f"the seeds were embedded by encoder {version}, the vectors by {self.version}, which are not "
                "comparable: embed the seeds with the same encoder, or build the look-alikes again"
            )
        x = np.atleast_2d(np.asarray(vectors, np.float32))
        if x.ndim != 2 or x.shape[1] != len(self.mean_) or not np.isfinite(x).all():
            raise DataError(f"the seeds are {x.shape}; give finite vectors of length {len(self.mean_)}")
        return self._ranked(self._prepared(x), np.zeros(0, np.int64), top, form)

    def places_of(self, ids: Sequence[str], key: bytes) -> Ints:
        """(m,) places of customers by identifier, -1 for customers without a vector; needs the key of the fit.

        Raises:
            DataError: the fit had no identifiers.
            ConfigError: not the key of the fit.
        """
        if self.hashes_ is None:
            raise DataError("these look-alikes have places only: fit them with ids and a key")
        if key_id(key) != self.key_mark_:
            raise ConfigError("this is not the key that the look-alikes were made with: give that one")
        places = {bytes(row): place for place, row in enumerate(self.hashes_)}
        return np.array([places.get(keyed_hash(id, key), -1) for id in ids], np.int64)

    def save(self, folder: Path) -> None:
        """Write `lookalikes.safetensors` and `lookalikes.json`; no identifiers, and not the key."""
        folder.mkdir(parents=True, exist_ok=True)
        hashes = {} if self.hashes_ is None else {"hashes": self.hashes_}
        arrays = {"vectors": self.vectors_, "mean": self.mean_, "scale": self.scale_, **hashes}
        save_file(arrays, folder / "lookalikes.safetensors")
        about = {
            "format": FORMAT,
            "version": self.version,
            "settings": self.settings.model_dump(mode="json"),
            "key_mark": self.key_mark_,
        }
        (folder / "lookalikes.json").write_text(json.dumps(about, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, version: str | None = None) -> Self:
        """Read what `save` wrote.

        Args:
            folder: where it is.
            version: of the encoder of the seeds; None: any.

        Raises:
            DataError: the folder holds no look-alikes, damaged ones, or those of another encoder.
        """
        path = folder / "lookalikes.json"
        if not path.is_file():
            raise DataError(f"No look-alikes in {folder}: it has no lookalikes.json. Build and save them first.")
        about = json.loads(path.read_text(encoding="utf-8"))
        if about.get("format") != FORMAT:
            raise DataError(f"{path} is of format {about.get('format')!r}, this version reads {FORMAT}: build it anew")
        if version not in (None, about["version"]):
            raise DataError(
                f"the vectors in {folder} are by encoder {about['version']}, not {version}: embed everybody anew"
            )
        lookalikes = cls(LookalikeSettings(**about["settings"]))
        arrays = load_file(folder / "lookalikes.safetensors")
        lookalikes.version, lookalikes.key_mark_ = about["version"], about["key_mark"]
        lookalikes.vectors_, lookalikes.mean_, lookalikes.scale_ = arrays["vectors"], arrays["mean"], arrays["scale"]
        lookalikes.hashes_ = arrays.get("hashes")
        n, width = lookalikes.vectors_.shape
        if (width,) != lookalikes.mean_.shape or len(arrays.get("hashes", lookalikes.vectors_)) != n:
            raise DataError(f"the files in {folder} do not match: build the look-alikes again")
        return lookalikes

    def _prepared(self, x: Floats) -> Floats:
        """(n, d) standardised; of length 1 for the cosine."""
        z = np.subtract(x, self.mean_.astype(np.float32))
        z /= self.scale_.astype(np.float32)
        if self.settings.metric == "cosine":
            length = np.sqrt(np.einsum("nd,nd->n", z, z))
            z /= np.where(length > 0, length, 1.0).astype(np.float32)[:, None]
        return np.asarray(z, np.float32)

    def _ranked(self, seeds: Floats, excluded: Ints, top: int, form: str | None) -> pd.DataFrame:
        """All vectors compared in single precision, the best ones again in double precision."""
        if top < 1:
            raise DataError(f"top is {top}: ask for one customer at least")
        points = seeds.astype(np.float64)
        if (form or self.settings.form) == "mean":
            points = points.mean(axis=0, keepdims=True)  # the mean of cosines is the product with the mean
        score = np.concatenate(list(self._scores(points)))
        score[excluded] = -np.inf
        available = len(score) - len(excluded)
        n_candidates = min(top + SPARE, available)
        if n_candidates:
            candidates = np.sort(np.argpartition(-score, n_candidates - 1)[:n_candidates])
        else:
            candidates = np.zeros(0, np.int64)
        exact = _closeness(self.vectors_[candidates].astype(np.float64), points, self.settings.metric)
        order = np.argsort(-exact, kind="stable")[: min(top, available)]
        places, closeness = candidates[order], exact[order]
        cosine = self.settings.metric == "cosine"
        nearest = pd.DataFrame(
            {"place": places, "similarity" if cosine else "distance": closeness if cosine else -closeness}
        )
        if self.hashes_ is not None:
            nearest["hash"] = [self.hashes_[place].tobytes().hex() for place in places]
        return nearest

    def _scores(self, points: npt.NDArray[np.float64]) -> Iterator[Floats]:
        """(n,) in blocks: larger is nearer, to the nearest of (s, d) points."""
        p = points.astype(np.float32)
        squares = np.einsum("sd,sd->s", p, p)
        rows = max(1, BLOCK_CELLS // len(p))
        for first in range(0, len(self.vectors_), rows):
            z = self.vectors_[first : first + rows]
            products = z @ p.T  # (rows, s)
            if self.settings.metric == "cosine":
                yield products.max(axis=1)
            else:
                yield (2 * products - squares).max(axis=1) - np.einsum("nd,nd->n", z, z)


def _closeness(z: npt.NDArray[np.float64], points: npt.NDArray[np.float64], metric: str) -> npt.NDArray[np.float64]:
    """(n,) the cosine with the nearest of the points, or minus the distance to it."""
    if metric == "cosine":
        return np.asarray((z @ points.T).max(axis=1))
    best = np.full(len(z), np.inf)
    for point in points:
        best = np.minimum(best, np.sqrt(((z - point) ** 2).sum(axis=1)))
    return -best


def _hashed(ids: Sequence[str], n: int, key: bytes | None) -> tuple[Hashes, str]:
    """(n, 32) hashes of identifiers, and the key's mark."""
    if key is None:
        raise ConfigError("identifiers are kept as keyed hashes: give a key (new_key() makes one), or no identifiers")
    checked_key(key)
    if len(ids) != n or len(set(ids)) != n or any(id is None for id in ids):
        raise DataError(
            f"{n:,} vectors and {len(set(ids)):,} different identifiers: give one of each for every customer"
        )
    joined = b"".join(keyed_hash(str(id), key) for id in ids)
    return np.frombuffer(joined, np.uint8).reshape(n, 32).copy(), key_id(key)
