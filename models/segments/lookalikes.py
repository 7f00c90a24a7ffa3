"""Look-alikes: the customers nearest to a given list, by vectors, exactly, up to a million of them.

    vectors = Lookalikes().fit(embedder.embed(snapshots), embedder.version)
    vectors.nearest([17, 204, 3], top=100)       # place, similarity; without the seeds themselves

Results are places in the vectors, or keyed hashes of identifiers (HMAC-SHA256, RFC 2104): who has the key can tell
which customer a hash is, nobody else. The key is never saved with the vectors; keep it apart
(`features.privacy.keyed_hashes`).
Vectors of two versions of an encoder mean different things and are never mixed.
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
BLOCK_CELLS = 4_000_000  # rows × seeds at a time
SPARE = 64  # candidates beyond those asked for, ranked again in double precision
FORMAT = 1


class LookalikeSettings(Section):
    """What near means.

    Attributes:
        metric: "cosine" of the angle, or "euclidean" distance.
        standardise: first bring every dimension to mean 0 and variance 1.
        form: "mean": nearest to the middle of the seeds; "max": nearest to any one of them.
    """

    metric: Literal["cosine", "euclidean"] = "cosine"
    standardise: bool = True
    form: Literal["mean", "max"] = Field(default="mean")


class Lookalikes:
    """Vectors of customers that can be asked for neighbours."""

    def __init__(self, settings: LookalikeSettings | None = None) -> None:
        self.settings = settings or LookalikeSettings()

    def fit(
        self, vectors: npt.ArrayLike, version: str, ids: Sequence[str] | None = None, key: bytes | None = None
    ) -> Self:
        """Keep the vectors, ready to be compared.

        Args:
            vectors: (n, d) one a customer, n at most a million.
            version: of the encoder that made them.
            ids: (n,) identifiers, of which only keyed hashes are kept; None: places only.
            key: for the hashes, 16 bytes at least (`new_key`).

        Raises:
            DataError: no vectors, too many, some not finite, identifiers that do not fit or repeat.
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
        plain = self.settings.standardise
        self.mean_ = x.mean(axis=0, dtype=np.float64) if plain else np.zeros(x.shape[1])
        spread = x.std(axis=0, dtype=np.float64) if plain else np.ones(x.shape[1])
        self.scale_ = np.where(spread > 1e-9, spread, 1.0)
        self.vectors_ = self._prepared(x)
        self.hashes_, self.key_mark_ = None, ""
        if ids is not None:
            self.hashes_, self.key_mark_ = _hashed(ids, len(x), key)
        return self

    def nearest(self, seeds: npt.ArrayLike, top: int = 100, form: Literal["mean", "max"] | None = None) -> pd.DataFrame:
        """The `top` customers who are nearest to those at the places `seeds`, without these.

        Args:
            seeds: (s,) places, as the vectors were given to `fit`.
            top: how many.
            form: "mean" or "max" of the seeds; None: that of the settings.

        Returns:
            Nearest first: place, similarity (cosine, for "mean" the mean of those to all seeds), or with the Euclidean
            metric distance (to the mean, or to the nearest seed); and hash where identifiers were given.

        Raises:
            DataError: no seeds, or places where nobody is.
        """
        places = np.unique(np.asarray(seeds, np.int64).reshape(-1))
        if not len(places) or places[0] < 0 or places[-1] >= len(self.vectors_):
            raise DataError(f"seeds must be places from 0 to {len(self.vectors_) - 1}, at least one")
        return self._ranked(self.vectors_[places], places, top, form)

    def nearest_to(
        self, vectors: npt.ArrayLike, version: str, top: int = 100, form: Literal["mean", "max"] | None = None
    ) -> pd.DataFrame:
        """The same for customers who are not among the vectors: (s, d) vectors by the same version of the encoder.

        Raises:
            DataError: vectors of another version, or of another length.
        """
        if version != self.version:
            raise DataError(
                f"the seeds were embedded by encoder {version}, the vectors by {self.version}, and the two do not "
                "compare: embed the seeds with the same encoder, or build the look-alikes anew"
            )
        x = np.atleast_2d(np.asarray(vectors, np.float32))
        if x.ndim != 2 or x.shape[1] != len(self.mean_) or not np.isfinite(x).all():
            raise DataError(f"the seeds are {x.shape}; give finite vectors of length {len(self.mean_)}")
        return self._ranked(self._prepared(x), np.zeros(0, np.int64), top, form)

    def places_of(self, ids: Sequence[str], key: bytes) -> Ints:
        """(m,) places of customers by identifier, -1 where there is no vector of theirs; needs the key of the fit.

        Raises:
            DataError: only places are known.
            ConfigError: another key than the vectors were kept with.
        """
        if self.hashes_ is None:
            raise DataError("these look-alikes know places only: fit them with ids and a key")
        if key_id(key) != self.key_mark_:
            raise ConfigError("this is not the key that the look-alikes were made with: give that one")
        known = {bytes(row): place for place, row in enumerate(self.hashes_)}
        return np.array([known.get(keyed_hash(one, key), -1) for one in ids], np.int64)

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
            version: of the encoder that is going to make seeds; None: do not ask.

        Raises:
            DataError: the folder holds no look-alikes, damaged ones, or some of another encoder's version.
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
        found = cls(LookalikeSettings(**about["settings"]))
        arrays = load_file(folder / "lookalikes.safetensors")
        found.version, found.key_mark_ = about["version"], about["key_mark"]
        found.vectors_, found.mean_, found.scale_ = arrays["vectors"], arrays["mean"], arrays["scale"]
        found.hashes_ = arrays.get("hashes")
        if found.vectors_.shape[1:] != found.mean_.shape or len(arrays.get("hashes", found.vectors_)) != len(
            found.vectors_
        ):
            raise DataError(f"the files in {folder} do not fit each other: build the look-alikes anew")
        return found

    def _prepared(self, x: Floats) -> Floats:
        """(n, d) standardised; of length 1 for the cosine."""
        z = np.subtract(x, self.mean_.astype(np.float32))
        z /= self.scale_.astype(np.float32)
        if self.settings.metric == "cosine":
            length = np.sqrt(np.einsum("nd,nd->n", z, z))
            z /= np.where(length > 0, length, 1.0).astype(np.float32)[:, None]
        return np.asarray(z, np.float32)

    def _ranked(self, seeds: Floats, left_out: Ints, top: int, form: str | None) -> pd.DataFrame:
        """Everybody compared in single precision, the best of them again in double precision."""
        if top < 1:
            raise DataError(f"top is {top}: ask for one customer at least")
        points = seeds.astype(np.float64)
        if (form or self.settings.form) == "mean":
            points = points.mean(axis=0, keepdims=True)  # the mean of cosines is the product with the mean
        score = np.concatenate(list(self._scores(points)))
        score[left_out] = -np.inf
        wanted = min(top, len(score) - len(left_out))
        some = min(wanted + SPARE, len(score) - len(left_out))
        candidates = np.sort(np.argpartition(-score, some - 1)[:some]) if some else np.zeros(0, np.int64)
        exact = _closeness(self.vectors_[candidates].astype(np.float64), points, self.settings.metric)
        order = np.argsort(-exact, kind="stable")[:wanted]
        places, closeness = candidates[order], exact[order]
        cosine = self.settings.metric == "cosine"
        found = pd.DataFrame(
            {"place": places, "similarity" if cosine else "distance": closeness if cosine else -closeness}
        )
        if self.hashes_ is not None:
            found["hash"] = [self.hashes_[place].tobytes().hex() for place in places]
        return found

    def _scores(self, points: npt.NDArray[np.float64]) -> Iterator[Floats]:
        """(n,) in portions: larger is nearer, to the nearest of (s, d) points."""
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
    """(n,) cosine with the nearest of the points, or less the distance to it."""
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
    if len(ids) != n or len(set(ids)) != n or any(one is None for one in ids):
        raise DataError(
            f"{n:,} vectors and {len(set(ids)):,} different identifiers: give one of each for every customer"
        )
    joined = b"".join(keyed_hash(str(one), key) for one in ids)
    return np.frombuffer(joined, np.uint8).reshape(n, 32).copy(), key_id(key)
