"""Look-alikes: exact, without the seeds, without identifiers, and never across versions."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from features.errors import ConfigError, DataError
from features.privacy.keyed_hashes import keyed_hash, new_key, read_key, write_key
from models.segments import lookalikes
from models.segments.lookalikes import Lookalikes, LookalikeSettings

KEY = b"sixteen bytes at least"
Metric = Literal["cosine", "euclidean"]
Form = Literal["mean", "max"]


def vectors(n: int = 200, d: int = 7, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(3, 2, (n, d)).astype(np.float32)


def reference(x: np.ndarray, seeds: list[int], metric: Metric, form: Form) -> np.ndarray:
    """(n,) closeness in double precision, −inf for the seeds."""
    z = (x.astype(float) - x.mean(axis=0, dtype=float)) / x.std(axis=0, dtype=float)
    if metric == "cosine":
        z /= np.linalg.norm(z, axis=1, keepdims=True)
        each = z @ z[seeds].T
        found = each.mean(axis=1) if form == "mean" else each.max(axis=1)
    else:
        points = z[seeds].mean(axis=0, keepdims=True) if form == "mean" else z[seeds]
        found = -np.linalg.norm(z[:, None] - points[None], axis=2).min(axis=1)
    found[seeds] = -np.inf
    return found


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("form", ["mean", "max"])
@settings(max_examples=10, deadline=None)
@given(seeds=st.lists(st.integers(0, 199), min_size=1, max_size=5, unique=True), top=st.integers(1, 300))
def test_it_finds_the_nearest(metric: Metric, form: Form, seeds: list[int], top: int) -> None:
    x = vectors()
    found = Lookalikes(LookalikeSettings(metric=metric)).fit(x, "v1").nearest(seeds, top, form)
    wanted = reference(x, seeds, metric, form)
    assert len(found) == min(top, 200 - len(seeds))
    assert not set(found["place"]) & set(seeds)
    best = np.sort(wanted)[::-1][: len(found)]
    column, sign = ("similarity", 1) if metric == "cosine" else ("distance", -1)
    assert found[column].to_numpy() * sign == pytest.approx(best, abs=1e-5)
    assert wanted[found["place"]] == pytest.approx(best, abs=1e-5)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Lookalikes().fit(vectors(), "v1").nearest([3, 50], 20, "max")
    monkeypatch.setattr(lookalikes, "BLOCK_CELLS", 14)
    assert Lookalikes().fit(vectors(), "v1").nearest([3, 50], 20, "max").equals(whole)


def test_seeds_from_outside_and_versions() -> None:
    x = vectors()
    index = Lookalikes().fit(x, "v1")
    assert index.nearest_to(x[17], "v1", top=3)["place"][0] == 17
    with pytest.raises(DataError, match="by encoder v2, the vectors by v1"):
        index.nearest_to(x[17], "v2")
    with pytest.raises(DataError, match="of length 7"):
        index.nearest_to(x[17, :3], "v1")


def test_hashes_hide_identifiers(tmp_path: Path) -> None:
    ids = [f"customer-{i}" for i in range(200)]
    index = Lookalikes().fit(vectors(), "v1", ids, KEY)
    found = index.nearest([5], top=4)
    assert found["hash"].tolist() == [keyed_hash(ids[place], KEY).hex() for place in found["place"]]
    assert index.places_of(["customer-7", "nobody"], KEY).tolist() == [7, -1]
    with pytest.raises(ConfigError, match="not the key"):
        index.places_of(["customer-7"], new_key())
    index.save(tmp_path)
    for path in tmp_path.iterdir():
        assert b"customer-" not in path.read_bytes()
        assert KEY not in path.read_bytes()
        assert KEY.hex().encode() not in path.read_bytes()


def test_it_survives_its_folder(tmp_path: Path) -> None:
    index = Lookalikes(LookalikeSettings(metric="euclidean", form="max")).fit(vectors(), "v1")
    index.save(tmp_path)
    again = Lookalikes.load(tmp_path, version="v1")
    assert again.nearest([1, 2], 30).equals(index.nearest([1, 2], 30))
    assert again.settings == index.settings
    assert set(load_file(tmp_path / "lookalikes.safetensors")) == {"vectors", "mean", "scale"}
    with pytest.raises(DataError, match="are by encoder v1, not v2"):
        Lookalikes.load(tmp_path, version="v2")
    about = tmp_path / "lookalikes.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "format": 9}))
    with pytest.raises(DataError, match="format 9"):
        Lookalikes.load(tmp_path)
    with pytest.raises(DataError, match=r"no lookalikes\.json"):
        Lookalikes.load(tmp_path / "elsewhere")


def test_keys_are_kept_apart(tmp_path: Path) -> None:
    key, path = new_key(), tmp_path / "keys" / "lookalikes.key"
    write_key(key, path)
    assert read_key(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(ConfigError, match="exists"):
        write_key(key, path)
    Lookalikes().fit(vectors(), "v1").save(tmp_path)
    with pytest.raises(ConfigError, match="another folder"):
        write_key(key, tmp_path / "beside.key")
    path.write_text("nonsense")
    with pytest.raises(ConfigError, match="no key"):
        read_key(path)


def test_constant_columns_and_equal_customers() -> None:
    x = np.tile(np.array([1.0, 2.0], np.float32), (50, 1))
    assert len(Lookalikes().fit(x, "v1").nearest([0], 10)) == 10


@pytest.mark.parametrize(
    ("x", "ids", "key", "said"),
    [
        (np.zeros((0, 3)), None, None, "give one of equal length"),
        (np.full((2, 3), np.nan), None, None, "not finite"),
        (np.zeros((2, 3)), ["a", "a"], KEY, "1 different identifiers"),
        (np.zeros((2, 3)), ["a", "b"], None, "give a key"),
        (np.zeros((2, 3)), ["a", "b"], b"short", "16 at least"),
    ],
)
def test_what_does_not_fit_is_refused(x: np.ndarray, ids: list[str] | None, key: bytes | None, said: str) -> None:
    with pytest.raises((DataError, ConfigError), match=said):
        Lookalikes().fit(x, "v1", ids, key)


@pytest.mark.parametrize("seeds", [[], [-1], [200]])
def test_seeds_must_be_there(seeds: list[int]) -> None:
    with pytest.raises(DataError, match="from 0 to 199"):
        Lookalikes().fit(vectors(), "v1").nearest(seeds)


def test_more_than_a_million_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookalikes, "MOST_VECTORS", 100)
    with pytest.raises(DataError, match="200 vectors"):
        Lookalikes().fit(vectors(), "v1")
