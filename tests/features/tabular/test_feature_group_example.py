"""The example of `docs/architecture/feature_group.md`: a new group is one file and one entry."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
LIST = "GROUPS: list[FeatureGroup] = ["
CODE = """
import pandas as pd
from features.journeys.packing import pack
from features.tabular import TabularFeatures

times = pd.to_datetime(["2024-01-01 10:00:00", "2024-01-01 10:00:30", "2024-01-02 00:00:00", "2024-01-02 00:01:01"])
journeys = pack(pd.DataFrame({"customer_id": "a", "timestamp": times, "touchpoint": "visit"}))
snapshots = journeys.at(["2023-12-31", "2024-01-03"])
features = TabularFeatures(groups=("bursts",), drop_redundant=False, min_count=1).fit(snapshots)
print(features.get_feature_names_out(), features.transform(snapshots).tolist(), features.meaning_of("quick_events"))
"""


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_example_group(tmp_path: Path, compiled: bool) -> None:
    page = (ROOT / "docs/architecture/feature_group.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert example is not None
    shutil.copytree(ROOT / "features", tmp_path / "features", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "features/tabular/groups/bursts.py").write_text(example[1], encoding="utf-8")
    catalogue = tmp_path / "features/tabular/catalogue.py"
    text = catalogue.read_text(encoding="utf-8").replace("    basket,\n", "    basket,\n    bursts,\n", 1)
    catalogue.write_text(text.replace(LIST, f"{LIST}\n    bursts.BURSTS_GROUP,"), "utf-8")
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "NUMBA_DISABLE_JIT": "" if compiled else "1"}
    environment |= {"NUMBA_CACHE_DIR": str(tmp_path / "kernels")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    names, values = "['quick_events', 'quick_share']", "[[0.0, nan], [1.0, 0.25]]"
    assert done.stdout == f"{names} {values} events at most a minute after the one before\n"
