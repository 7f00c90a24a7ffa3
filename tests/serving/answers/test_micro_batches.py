"""Requests that share a micro-batch get what each would get alone."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from models.scoring.golden_sample import read_sample
from models.scoring.scorer import Scorer
from serving.answers.answers import Answer, Answerer, ParsedRequest
from serving.answers.micro_batches import MAX_SIZE, MicroBatcher
from serving.bento.package import request_bodies
from serving.champions.champions import Champions
from serving.requests.schemas import RequestError

AS_OF = "2024-12-01T00:00:00Z"


@pytest.fixture(scope="module")
def answerer(scoring_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Answerer:
    folder = tmp_path_factory.mktemp("champions")
    shutil.copytree(scoring_folder, folder / "churn")
    return Answerer(Champions(folder))


@pytest.fixture(scope="module")
def bodies(simulated_events: pd.DataFrame) -> list[dict[str, Any]]:
    """Customers of different lengths; some of their events lack fields, one has an unknown touchpoint."""
    prepared = []
    for number, (customer, rows) in enumerate(simulated_events.groupby("customer_id")):
        events = [
            {str(name): value for name, value in row.items() if name != "customer_id" and not pd.isna(value)}
            for row in rows.assign(timestamp=rows["timestamp"].map(lambda at: at.isoformat() + "Z")).to_dict("records")
        ]
        body: dict[str, Any] = {"events": events[: 1 + number * 3], "as_of": AS_OF}
        if number % 2:
            body["customer_id"] = customer
        if number % 3 == 0:
            body["events"] = [{"timestamp": entry["timestamp"], "touchpoint": entry["touchpoint"]} for entry in events]
        prepared.append(body)
        if len(prepared) == 2 * MAX_SIZE + 3:
            break
    prepared[1]["events"][0]["touchpoint"] = "teleport"
    return prepared


def _parsed(
    answerer: Answerer, bodies: Sequence[dict[str, Any]], routes: Sequence[str] = ("score",)
) -> list[ParsedRequest]:
    return [
        answerer.parse(routes[place % len(routes)], json.dumps(body).encode(), f"r{place}")
        for place, body in enumerate(bodies)
    ]


def test_a_micro_batch_answers_as_single_calls(answerer: Answerer, bodies: list[dict[str, Any]]) -> None:
    requests = _parsed(answerer, bodies, ("score", "churn"))
    single = [answerer.answer_many([entry])[0] for entry in requests]
    assert answerer.answer_many(requests) == single
    assert answerer.answer_many(requests[::-1]) == single[::-1]
    assert isinstance(single[1], dict)
    assert single[1]["unknown"] == {"teleport": 1}
    assert [entry["request_id"] for entry in single if isinstance(entry, dict)] == [
        f"r{k}" for k in range(len(requests))
    ]


def test_a_customer_may_occur_twice(answerer: Answerer, bodies: list[dict[str, Any]]) -> None:
    shorter = bodies[5] | {"events": bodies[5]["events"][:1]}
    requests = _parsed(answerer, [bodies[5], shorter, bodies[5]])
    entry, two, three = answerer.answer_many(requests)
    assert isinstance(entry, dict)
    assert isinstance(three, dict)
    assert entry["answers"] == three["answers"]
    assert two == answerer.answer_many(requests[1:2])[0]


def test_a_request_without_events_fails_alone(answerer: Answerer, bodies: list[dict[str, Any]]) -> None:
    requests = _parsed(answerer, [bodies[0], bodies[1] | {"as_of": "2020-01-01"}, bodies[2]])
    first, refused, third = answerer.answer_many(requests)
    assert isinstance(refused, RequestError)
    assert refused.sentence.startswith("No event lies before as_of, 2020-01-01T00:00:00Z")
    assert [first, third] == answerer.answer_many([requests[0], requests[2]])


def _gathered(answerer: Answerer, requests: Sequence[ParsedRequest]) -> list[Answer | BaseException]:
    async def all_at_once() -> list[Answer | BaseException]:
        batcher = MicroBatcher()
        return await asyncio.gather(*(batcher.answer(answerer, entry) for entry in requests), return_exceptions=True)

    return asyncio.run(all_at_once())


def test_simultaneous_requests_share_calls(
    answerer: Answerer, bodies: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests, calls, answer = _parsed(answerer, bodies), [], answerer.answer_many

    def counted(batch: Sequence[ParsedRequest]) -> list[Answer | RequestError]:
        calls.append(len(batch))
        return answer(batch)

    monkeypatch.setattr(answerer, "answer_many", counted)
    assert _gathered(answerer, requests) == [answer([entry])[0] for entry in requests]
    assert calls == [MAX_SIZE, MAX_SIZE, 3]


def test_a_failing_request_fails_alone(
    answerer: Answerer, bodies: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_rows = Scorer.answer_rows

    def fails(self: Scorer, snapshots: Any) -> list[dict[str, Any]]:
        if "poison" in snapshots.journeys.customer_ids.to_pylist():
            raise ZeroDivisionError
        return answer_rows(self, snapshots)

    requests = _parsed(answerer, [bodies[0], bodies[1] | {"customer_id": "poison"}, bodies[2]])
    monkeypatch.setattr(Scorer, "answer_rows", fails)
    first, failed, third = _gathered(answerer, requests)
    assert isinstance(failed, ZeroDivisionError)
    assert [first, third] == answerer.answer_many([requests[0], requests[2]])


def test_a_disconnected_client_is_ignored(answerer: Answerer, bodies: list[dict[str, Any]]) -> None:
    entry, other = _parsed(answerer, bodies[:2])

    async def client_disconnects() -> Answer:
        batcher = MicroBatcher()
        gone = asyncio.ensure_future(batcher.answer(answerer, entry))
        await asyncio.sleep(0)
        gone.cancel()
        return await batcher.answer(answerer, other)

    assert asyncio.run(client_disconnects()) == answerer.answer_many([other])[0]


def test_event_loops_of_several_threads_do_not_wait_for_each_other(
    answerer: Answerer, bodies: list[dict[str, Any]]
) -> None:
    batcher, requests = MicroBatcher(), _parsed(answerer, bodies[:8])

    def ask(entry: ParsedRequest) -> list[Answer]:
        return [asyncio.run(batcher.answer(answerer, entry)) for _ in range(20)]

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(ask, entry) for entry in requests]
        for entry, future in zip(requests, futures, strict=True):
            assert future.result(timeout=60) == [answerer.answer_many([entry])[0]] * 20


def test_recorded_journeys_are_answered_as_recorded(answerer: Answerer, scoring_folder: Path) -> None:
    events, scores = read_sample(scoring_folder)
    requests = [answerer.parse("churn", json.dumps(body).encode(), "r") for body in request_bodies(events).values()]
    answers = {answer["customer_id"]: answer["probability"] for answer in answerer.answer_many(requests) if answer}  # type: ignore[index]
    assert [answers[customer] for customer in scores["customer_id"]] == scores["probability"].tolist()
