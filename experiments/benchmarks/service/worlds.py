"""What the service is measured with: models of simulated journeys in a bento, and BentoML services that do nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pandas as pd
import pyarrow as pa

from experiments.benchmarks.simulated_exam import TRAIN_DAYS, label_table
from features.journeys.journeys import Snapshots
from features.sequences.sequences import SequenceFeatures
from features.simulation.simulator import Simulation, simulate
from models.boosting.compiled_trees import BoostedTrees
from models.boosting.gbdt import GBDT, GBDTSettings
from models.calibration import BetaCalibration
from models.contract import SavableModel
from models.scoring.golden_sample import record_sample
from models.scoring.scorer import Scorer, visible_touchpoints
from models.segments.clustering.clusters import ClusterSegments, ClusterSettings
from models.segments.collection import SegmentCollection
from models.segments.rules.schemes import fit_schemes
from serving.bento.package import package
from training.config.segment_settings import CLUSTERS, DEFAULT_PARTITIONS

TREES, EVENTS, DAYS = 300, 50, 400
LABELS = ("churn", "conversion")
AS_OF = "2025-02-04T00:00:00Z"  # the day after the last simulated event
NOTHING = '''"""BentoML services that do nothing, to compare with."""

import bentoml


@bentoml.service(http={"host": "127.0.0.1"}, workers=1)
class Echo:
    @bentoml.api
    def echo(self, journey: dict) -> dict:
        return journey


async def ok(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


@bentoml.service(http={"host": "127.0.0.1"}, workers=1)
@bentoml.asgi_app(ok, path="/")
class Bare:
    pass
'''


class ServiceWorld:
    """Simulated journeys, models of them as scoring folders, and bentos, made where they are missing.

    Args:
        home: keeps it all.
        customers: how many are simulated.
    """

    def __init__(self, home: Path, customers: int) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        self.simulation: Simulation = simulate(customers, days=DAYS, seed=7)
        self.events = self.simulation.events
        os.environ["BENTOML_HOME"] = str(home.resolve() / "bentoml")
        os.environ["BENTOML_DO_NOT_TRACK"] = "True"

    def bento(
        self,
        name: str,
        members: int = 1,
        labels: Sequence[str] = LABELS,
        segments: bool = True,
        sequence: bool = False,
    ) -> str:
        """The tag of a bento of boosters, of segments, and of a GRU where asked for."""
        folders = [self.boosted(label, members) for label in labels]
        folders += [self._segments()] if segments else []
        folders += [self._gru()] if sequence else []
        return self._once(name, lambda: package(folders, name=name).tag)

    def nothing(self, service: str) -> str:
        """The tag of a bento of `Echo` or `Bare`."""
        return self._once(service.lower(), lambda: self._build(service))

    def customers(self, fewest: int = EVENTS) -> list[str]:
        """Those with at least so many events."""
        counts = self.events["customer_id"].value_counts()
        return sorted(counts.index[counts >= fewest])

    def journeys(self, n: int, events: int = EVENTS) -> list[dict[str, Any]]:
        """`n` requests: the first events of customers, who come again under other names where there are too few."""
        customers_ = self.customers(events)
        groups = dict(iter(self.events[self.events["customer_id"].isin(customers_[:n])].groupby("customer_id")))
        built = []
        for number in range(n):
            rows = groups[customers_[number % min(n, len(customers_))]].iloc[:events].drop(columns="customer_id")
            rows = rows.assign(timestamp=rows["timestamp"].map(lambda moment: moment.isoformat() + "Z"))
            rows_out = [{str(k): v for k, v in row.items() if not pd.isna(v)} for row in rows.to_dict("records")]
            built.append({"customer_id": f"customer-{number:05d}", "events": rows_out, "as_of": AS_OF})
        return built

    def table(self, customers: int, events: int = EVENTS) -> pa.Table:
        """(customers × events,) canonical rows."""
        customers_ = self.customers(events)
        chosen = (
            self.events[self.events["customer_id"].isin(customers_[:customers])].groupby("customer_id").head(events)
        )
        turns = range(-(-customers // min(customers, len(customers_))))
        parts = [chosen.assign(customer_id=chosen["customer_id"] + f"-{turn}") for turn in turns]
        rows = pd.concat(parts, ignore_index=True).iloc[: customers * events]
        return pa.Table.from_pandas(rows.astype({"customer_id": object}), preserve_index=False)

    def boosted(self, label: str, members: int) -> Path:
        """The scoring folder of LightGBM, exactly 300 trees a member, all fitted on the same rows."""
        folder = self.home / "scoring" / f"{label}_{members}"
        if (folder / "task.json").is_file():
            return folder
        table = label_table(self.simulation, label, TRAIN_DAYS)
        rows, y = self.simulation.journeys.at_ids(table), table["label"].to_numpy(dtype=np.float64)
        model = GBDT(GBDTSettings(members=members))
        model.features_ = model._new_features().fit(rows)
        x = model.features_.transform(rows)
        model.members_ = [self._booster(model, x, y, seed) for seed in range(members)]
        model.calibration_ = BetaCalibration.fit(model._margins(x), y)
        return self._save(model, label, label, rows, folder)

    @staticmethod
    def _booster(model: GBDT, x: Any, y: Any, seed: int) -> BoostedTrees:
        parameters = model.settings.booster_parameters() | {"seed": seed}
        data = lgb.Dataset(x, y, feature_name=model.features_.get_feature_names_out(), params=parameters)
        return BoostedTrees(lgb.train(parameters, data, TREES).model_to_string())

    def _segments(self) -> Path:
        folder = self.home / "scoring" / "segments"
        if (folder / "task.json").is_file():
            return folder
        rows = self.simulation.journeys.at(str(self.events["timestamp"].max()))
        settings = ClusterSettings(segments=6, rounds=2, restarts=5, methods=("kmeans",), representation="tabular")
        schemes, _ = fit_schemes([name for name in DEFAULT_PARTITIONS if name != CLUSTERS], rows)
        book = SegmentCollection((ClusterSegments(settings).fit(rows), *schemes.values()), CLUSTERS)
        return self._save(book, "segments", "segmentation", rows, folder)

    def _gru(self) -> Path:
        from experiments.benchmarks.sequences.worlds import model_of

        folder = self.home / "scoring" / "gru"
        if (folder / "task.json").is_file():
            return folder
        rows = self.simulation.journeys.at(str(self.events["timestamp"].max()))
        rows = rows.take(rows.stop > rows.start)
        return self._save(model_of("gru", 128, 1, SequenceFeatures().fit(rows)), "churn_gru", "labels", rows, folder)

    def _save(self, model: SavableModel, name: str, kind: str, rows: Snapshots, folder: Path) -> Path:
        task = {"name": name, "kind": kind, "horizon_days": 28}
        scorer = Scorer(model, task, self.simulation.schema, touchpoints=visible_touchpoints(rows))
        scorer.save(folder)
        record_sample(scorer, rows, folder)
        return folder

    def _once(self, name: str, make: Any) -> str:
        """The tag that was made last under a name, or a new one."""
        noted = self.home / f"{name}.tag"
        if not noted.is_file():
            noted.write_text(make())
        return noted.read_text()

    def _build(self, service: str) -> str:
        folder = self.home / "nothing" / service
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "nothing.py").write_text(NOTHING)
        about = {"service": f"nothing:{service}", "name": service.lower(), "include": ["nothing.py"]}
        (folder / "bentofile.yaml").write_text(json.dumps(about))
        command: Sequence[str] = [sys.executable, "-m", "bentoml", "build", str(folder), "--output", "tag"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        match = re.search(rf"{service.lower()}:[a-z0-9_.-]+", done.stdout)
        if done.returncode or not match:
            raise RuntimeError(f"bentoml build failed: {done.stderr or done.stdout}")
        return match.group()
