"""What every test may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real inputs beside the repository."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no data folder beside the repository")
    return SHARED
