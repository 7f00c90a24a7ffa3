"""Replay recorded requests through the service's code, without HTTP; run in the folder whose code is meant.

    cd BENTO/src && python -m serving.bento.replay < requests.json > answers.json

In: a JSON list of `{"route": …, "body": {…}}`. Out: `{"code": folder, "answers": [{answer: value, …} or null, …]}`.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

EVER = datetime(2099, 12, 30, tzinfo=UTC)  # recorded journeys may lie ahead of this machine's clock


def replay(requests: list[dict[str, Any]]) -> list[dict[str, Any] | None]:
    """The whole answer to each request; None where it was refused."""
    from serving.answers.answers import Answerer
    from serving.champions.champions import Champions
    from serving.requests.schemas import RequestError

    answerer = Answerer(Champions(Path("champions")))
    answers: list[dict[str, Any] | None] = []
    for request in requests:
        body = json.dumps(request["body"]).encode()
        try:
            answers.append(answerer.answer(request["route"], body, "", EVER))
        except RequestError:
            answers.append(None)
    return answers


def main() -> None:
    """Standard input to standard output."""
    answers = replay(json.load(sys.stdin))
    import features

    code = str(Path(features.__file__ or "").resolve().parents[1])
    json.dump({"code": code, "answers": answers}, sys.stdout)


if __name__ == "__main__":
    main()
