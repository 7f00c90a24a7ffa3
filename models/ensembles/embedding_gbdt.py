"""LightGBM on tabular features and the embedding of a pretrained encoder side by side."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.journeys.journeys import Snapshots
from features.tabular.features import TabularFeatures
from features.tabular.settings import TabularSettings
from models.boosting.gbdt import GBDT, Features, GBDTSettings
from models.sequence.embedder import Embedder, packages_of
from models.sequence.settings import EncoderSettings

GROUP = "embedding"


@dataclass(frozen=True)
class EmbeddingGBDTSettings(GBDTSettings):
    """As of LightGBM alone, and of the encoder.

    Attributes:
        encoder: what is embedded, and by what.
        tabular: whether the tabular features stand beside the embedding.
    """

    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    tabular: bool = True

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON-ready data."""
        return super().to_dict() | {"encoder": self.encoder.to_dict()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_dict`; what is missing takes its default."""
        return super().from_dict(data | {"encoder": EncoderSettings.from_dict(data.get("encoder", {}))})


class TabularAndEmbedding:
    """Columns of both; an embedding's columns are `embedding.0`, `embedding.1` and so on."""

    def __init__(self, tabular: TabularSettings | None, encoder: EncoderSettings, folder: Path | None = None) -> None:
        self.tabular = None if tabular is None else TabularFeatures(tabular)
        self.embedder = Embedder(encoder)
        self.folder = folder

    def fit(self, snapshots: Snapshots) -> Self:
        """Learn both from (n,) training snapshots."""
        if self.tabular is not None:
            self.tabular.fit(snapshots)
        self.embedder.fit(snapshots, None if self.folder is None else self.folder / "pretraining")
        self.dim = self.embedder.embed(snapshots.take(np.arange(1))).shape[1]
        return self

    def transform(self, snapshots: Snapshots) -> npt.NDArray[np.float32]:
        """(n, f + d) float32."""
        embedding = self.embedder.embed(snapshots)
        return embedding if self.tabular is None else np.hstack([self.tabular.transform(snapshots), embedding])

    def get_feature_names_out(self) -> list[str]:
        """(f + d,) names."""
        return list(self.describe()["name"])

    def describe(self) -> pd.DataFrame:
        """One row a column: name, group, meaning, categorical."""
        columns = pd.DataFrame(
            {
                "name": [f"embedding.{place}" for place in range(self.dim)],
                "group": GROUP,
                "meaning": [f"component {place} of the journey's embedding" for place in range(self.dim)],
                "categorical": False,
            }
        )
        return columns if self.tabular is None else pd.concat([self.tabular.describe(), columns], ignore_index=True)

    @property
    def categorical_features(self) -> list[str]:
        """The columns whose values are codes."""
        return [] if self.tabular is None else self.tabular.categorical_features


class EmbeddingGBDT(GBDT):
    """LightGBM on both, behind the contract of every model."""

    kind = "embedding_gbdt"
    settings: EmbeddingGBDTSettings
    features_: TabularAndEmbedding

    def __init__(self, settings: EmbeddingGBDTSettings | None = None) -> None:
        super().__init__(settings or EmbeddingGBDTSettings())
        self._folder: Path | None = None

    @property
    def packages(self) -> tuple[str, ...]:
        """What it needs to run."""
        return packages_of(self.settings.encoder.network)

    def resume_in(self, folder: Path) -> None:
        """Keep the state of pretraining in `folder`, and go on from there."""
        self._folder = folder

    def embed(self, snapshots: Snapshots) -> npt.NDArray[np.float32]:
        """(n, d) embeddings."""
        return self.features_.embedder.embed(snapshots)

    @property
    def version(self) -> str:
        """Of the encoder."""
        return self.features_.embedder.version

    def history(self) -> pd.DataFrame:
        """How pretraining went."""
        return self.features_.embedder.history_

    @staticmethod
    def settings_from(data: dict[str, Any]) -> EmbeddingGBDTSettings:
        """Settings of this kind of model from JSON-ready data."""
        return EmbeddingGBDTSettings.from_dict(data)

    def _new_features(self) -> Features:
        tabular = self.settings.features if self.settings.tabular else None
        return TabularAndEmbedding(tabular, self.settings.encoder, self._folder)

    def _save_features(self, folder: Path) -> None:
        self.features_.embedder.save(folder)
        tabular = self.features_.tabular
        data = {"tabular": None if tabular is None else tabular.to_dict(), "dim": self.features_.dim}
        (folder / "features.json").write_text(json.dumps(data, indent=1, ensure_ascii=False), encoding="utf-8")

    def _load_features(self, folder: Path) -> None:
        data = json.loads((folder / "features.json").read_text(encoding="utf-8"))
        self.features_ = TabularAndEmbedding(None, self.settings.encoder)
        self.features_.embedder, self.features_.dim = Embedder.load(folder), data["dim"]
        self.features_.tabular = None if data["tabular"] is None else TabularFeatures.from_dict(data["tabular"])
