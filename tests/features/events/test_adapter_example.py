"""The example of `docs/architecture/adapter.md`: a new adapter is one file and one entry."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from features.events.adapters import ADAPTERS
from features.events.source import EventSource
from features.journeys.loading import load_journeys, read_events

PAGE = Path(__file__).resolve().parents[3] / "docs/architecture/adapter.md"
TICKETS = """Client,Opened,Closed,Topic,Agent,Text
a,2024-01-01 10:00,2024-01-02 09:00,invoice,Jo,late
b,2024-01-03 11:00,,login,Bo,
c,2024-01-04 12:00,2024-01-04 13:00,test,Bo,
d,soon,,login,Jo,
"""


def test_example_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    module: dict[str, Any] = {}
    exec(compile(example[1], "tickets.py", "exec"), module)
    monkeypatch.setitem(ADAPTERS, "tickets", module["ADAPTER"])
    (tmp_path / "tickets.csv").write_text(TICKETS, encoding="utf-8")
    source = EventSource(path=tmp_path / "tickets.csv", adapter="tickets")
    checked = read_events(source)
    assert checked.events["touchpoint"].to_pylist() == ["ticket opened", "ticket opened", "ticket closed"]
    assert checked.events["agent"].to_pylist() == ["Jo", "Bo", "Jo"]
    reasons = dict(zip(checked.quarantine["row"].to_pylist(), checked.quarantine["reason"].to_pylist(), strict=True))
    assert reasons == {3: "the ticket is a test", 4: "timestamp is not a time"}
    assert checked.quarantine["Topic"].to_pylist() == ["test", "test", "login"]
    assert load_journeys(source).n_events == 3
