"""The benchmark of the sequence models runs; what it measures here means nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "experiments" / "benchmarks" / "sequence_speed.py"


@pytest.mark.slow
def test_it_runs_and_prints_its_table(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--quick", "--threads", "1", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    for message in (
        "steps a second",
        "end to end",
        "members: 4",
        "PyTorch eager",
        "nn.GRU packed",
        "fine-tuning",
        "  bar: ",
    ):
        assert message in done.stdout
    report = json.loads((tmp_path / "sequence_speed.json").read_text())
    assert {"name", "figure", "bar", "met"} <= set(report["bars"][0])
