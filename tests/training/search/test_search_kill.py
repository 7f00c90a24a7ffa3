"""A search that is killed with -9, again and again, ends as if it had not been."""

from __future__ import annotations

from pathlib import Path

import pytest

from kill_search import run


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_kills_lose_and_repeat_no_trial(tmp_path: Path, jobs: int) -> None:
    figures = run(tmp_path, trials=6, kills=5, jobs=jobs, seed=jobs)
    assert figures["ok"], figures
