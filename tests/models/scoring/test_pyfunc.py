"""The MLflow model: raw events in, probabilities out, in any folder, without pickle and without this repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features.errors import DataError
from models.pyfunc import EventModel, code_paths, input_example, signature
from models.scoring.golden_sample import read_sample
from models.scoring.scorer import Scorer

ROOT = Path(__file__).resolve().parents[3]
SAVE = """
import json, sys, warnings
from pathlib import Path
import mlflow
from models.scoring.scorer import Scorer, requirements
from models.scoring.golden_sample import read_sample
from models.pyfunc import code_paths, input_example, signature
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
how = dict(
    loader_module="models.pyfunc", data_path=str(folder), code_paths=[str(path) for path in code_paths()],
    signature=signature(Scorer.load(folder).schema), input_example=input_example(read_sample(folder)[0]),
    pip_requirements=list(requirements()),
)
if len(sys.argv) > 3:
    mlflow.set_tracking_uri(sys.argv[3])
    with mlflow.start_run():
        print(mlflow.pyfunc.log_model(name="model", **how).model_uri)
else:
    mlflow.pyfunc.save_model(str(out), **how)
"""
LOAD = """
import sys
root, model, events, out = sys.argv[1:5]
sys.path[:] = [path for path in sys.path if path not in ("", root)]
import mlflow, pandas
if len(sys.argv) > 5:
    mlflow.set_tracking_uri(sys.argv[5])
loaded = mlflow.pyfunc.load_model(model)
import features, models
assert not features.__file__.startswith(root) and not models.__file__.startswith(root), features.__file__
loaded.predict(pandas.read_parquet(events)).to_parquet(out)
"""


@pytest.fixture(scope="module")
def model(scoring_folder: Path) -> EventModel:
    return EventModel(Scorer.load(scoring_folder))


def test_one_row_a_customer_just_after_the_last_event(model: EventModel, simulated_events: pd.DataFrame) -> None:
    answer = model.predict(simulated_events)
    assert list(answer.columns) == ["customer_id", "cutoff", "probability", "reason"]
    assert len(answer) == simulated_events["customer_id"].nunique()
    assert (answer["cutoff"] == simulated_events["timestamp"].max() + pd.Timedelta(1, "us")).all()


def test_as_of_is_a_parameter(model: EventModel, simulated_events: pd.DataFrame) -> None:
    answer = model.predict(simulated_events, {"as_of": "2024-06-01"})
    direct = model.scorer.score_events(simulated_events, as_of="2024-06-01").frame
    pd.testing.assert_frame_equal(answer, direct)
    pd.testing.assert_frame_equal(model.predict(simulated_events, {"as_of": ""}), model.predict(simulated_events))


def test_a_column_of_cutoffs_asks_for_each_customer_and_cutoff(
    model: EventModel, simulated_events: pd.DataFrame
) -> None:
    customers = simulated_events["customer_id"].unique()[:6]
    requests = pd.DataFrame(
        {
            "customer_id": np.repeat(customers, 2),
            "cutoff": pd.to_datetime(["2024-05-01", "2024-07-01"] * 6).astype("datetime64[us]"),
        }
    )
    answer = model.predict(simulated_events.merge(requests, on="customer_id"))
    direct = model.scorer.score_events(simulated_events, requests).frame
    both = answer.merge(direct, on=["customer_id", "cutoff"], validate="1:1")
    assert len(both) == 12
    np.testing.assert_array_equal(both["probability_x"], both["probability_y"])


def test_what_cannot_be_meant_is_refused(model: EventModel, simulated_events: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="which is meant"):
        model.predict(simulated_events.assign(cutoff="2024-05-01"), {"as_of": "2024-06-01"})
    with pytest.raises(DataError, match="No column 'customer_id'"):
        model.predict(simulated_events.drop(columns="customer_id").assign(cutoff="2024-05-01"))


def test_rows_without_a_customer_or_cutoff_are_answered_with_a_reason(
    model: EventModel, simulated_events: pd.DataFrame
) -> None:
    subset = simulated_events.head(30).assign(cutoff="2024-12-01")
    subset.loc[subset.index[0], "customer_id"] = None
    subset.loc[subset.index[1], "cutoff"] = None
    answer = model.predict(subset)
    assert answer["reason"].notna().sum() == 2
    assert answer["probability"].notna().sum() == len(answer) - 2


def test_the_example_is_small_readable_and_nobodys(model: EventModel, scoring_folder: Path) -> None:
    example = input_example(read_sample(scoring_folder)[0])
    assert example["customer_id"].unique().tolist() == ["customer-1", "customer-2", "customer-3"]
    assert len(example) <= 36
    assert "cutoff" not in example
    assert json.loads(example.to_json(orient="records"))
    assert model.predict(example)["probability"].notna().all()


def test_the_signature_names_the_columns(model: EventModel) -> None:
    signed = signature(model.scorer.schema)
    required = [column.name for column in signed.inputs.inputs if column.required]
    assert required == ["customer_id", "timestamp", "touchpoint"]
    assert {"country", "plan", "cutoff", "value"} <= set(signed.inputs.input_names())
    assert signed.outputs.input_names() == ["customer_id", "cutoff", "probability", "reason"]
    assert [param.name for param in signed.params.params] == ["as_of"]


def test_it_is_loaded_elsewhere_without_this_repository_and_gives_the_same_bits(
    model: EventModel, scoring_folder: Path, simulated_events: pd.DataFrame, tmp_path: Path
) -> None:
    saved = tmp_path / "saved"
    _run(SAVE, str(scoring_folder), str(saved))
    assert not [path for path in saved.rglob("*") if path.suffix in (".pkl", ".pickle", ".joblib", ".skops")]
    answer = _predicted(saved, simulated_events, tmp_path)
    pd.testing.assert_frame_equal(answer, model.predict(simulated_events))


def test_frames_of_every_make_are_taken(scoring_folder: Path, simulated_events: pd.DataFrame) -> None:
    from mlflow.models.utils import _enforce_schema

    expected = signature(Scorer.load(scoring_folder).schema).inputs
    frame = simulated_events.head(50)
    whole = {name: frame[name].fillna(0).astype(int) for name in ("value", "duration_s")}
    for sent in (
        frame.assign(timestamp=frame["timestamp"].dt.tz_localize("UTC")),
        frame.assign(timestamp=frame["timestamp"].astype(str)),
        frame.assign(**whole),
        frame.astype({"customer_id": "category", "touchpoint": "category"}),
        frame.assign(customer_id=frame["customer_id"].str[1:].astype(int)),
    ):
        assert len(_enforce_schema(sent, expected)) == 50


@pytest.mark.slow
def test_logged_in_a_store_and_loaded_by_its_uri(
    model: EventModel, scoring_folder: Path, simulated_events: pd.DataFrame, tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    uri = _run(SAVE, str(scoring_folder), "-", store, cwd=tmp_path).strip().splitlines()[-1]
    answer = _predicted(uri, simulated_events, tmp_path, store)
    pd.testing.assert_frame_equal(answer, model.predict(simulated_events))


def test_the_code_that_travels_is_two_folders() -> None:
    assert [path.name for path in code_paths()] == ["features", "models"]


def _predicted(model: Path | str, events: pd.DataFrame, folder: Path, *store: str) -> pd.DataFrame:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    events.to_parquet(folder / "events.parquet")
    sent, got = folder / "events.parquet", folder / "out.parquet"
    _run(LOAD, str(ROOT), str(model), str(sent), str(got), *store, cwd=elsewhere)
    return pd.read_parquet(got)


def _run(code: str, *arguments: str, cwd: Path | None = None) -> str:
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
