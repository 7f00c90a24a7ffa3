"""Who may call: tokens and their rotation, what is open without one, paths that pretend to be; no token, no others."""

from __future__ import annotations

import asyncio
import hmac
import http.client
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from features.errors import ConfigError
from http_client import Client
from serving.api import access
from serving.api.access import LOCAL_ONLY, NO_TOKEN, SHORTEST_TOKEN, TOKENS, TOKENS_FILE, TokenGate, Tokens
from serving.api.application import application
from serving.api.routes import OPEN_PATHS, service_of
from serving.bento.package import package
from serving.bento.serve import command, free_port, running, serve
from serving.champions.champions import Champions

FIRST, SECOND = "first-token-0123456789", "second-token-0123456789"
OPEN = [*sorted(OPEN_PATHS), "/static_content/swagger-ui.css"]
TRICKS = [
    "//metrics",
    "/metrics/",
    "/metrics/../score",
    "/metrics/%2e%2e/score",
    "/metrics%2f..%2fscore",
    "/static_content/../score",
    "/static_content/%2e%2e/score",
    "/static_content/..%2fscore",
    "/static_content/..\\score",
    "/static_content",
    "/STATIC_CONTENT/x",
    "/METRICS",
    "/Livez",
    "/livez%20",
    "/livez%00",
    "/livez;/score",
    "/livez/score",
    "/score#/livez",
    "/./livez/../score",
    "/score/",
    "//score",
    "/%73core",
    "/schema.json",
    "/docs.json/",
    "/nothing",
]


def call(gate: TokenGate, path: str, headers: Any = (), **scope: Any) -> int:
    """The status of a request that passed, or did not pass, the gate."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    scope_of_call = {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": list(headers),
        "server": ("127.0.0.1", 3000),
    }
    asyncio.run(gate(scope_of_call | scope, receive, send))
    if sent[0]["status"] != 200:
        (answer,) = [message["body"] for message in sent if message["type"] == "http.response.body"]
        assert json.loads(answer)["error"] in (NO_TOKEN, LOCAL_ONLY)
    return int(sent[0]["status"])


def gate_of(environment: Mapping[str, str]) -> TokenGate:
    async def inside(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return TokenGate(inside, Tokens(environment))


def bearer(token: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", f"Bearer {token}".encode())]


def test_each_of_several_tokens_lets_in_and_nothing_else() -> None:
    gate = gate_of({TOKENS: f"{FIRST}, {SECOND}\n"})
    assert [call(gate, "/score", bearer(token)) for token in (FIRST, SECOND)] == [200, 200]
    for wrong in ("", FIRST[:-1], FIRST + "x", FIRST.upper(), f"{FIRST} {SECOND}", f"{FIRST},{SECOND}", "*"):
        assert call(gate, "/score", bearer(wrong)) == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"authorization", f"bearer {FIRST}".encode())], 200),
        ([(b"authorization", f"  BEARER   {FIRST} ".encode())], 200),
        ([(b"authorization", f"Bearer\t{FIRST}".encode())], 401),
        ([(b"authorization", b"Bearer")], 401),
        ([(b"authorization", b"")], 401),
        ([(b"authorization", FIRST.encode())], 401),
        ([(b"authorization", f"Basic {FIRST}".encode())], 401),
        ([(b"authorization", f"Token {FIRST}".encode())], 401),
        ([(b"authorization", b"Bearer \xff\xfe\x00")], 401),
        ([(b"authorization", b"Bearer " + b"x" * 100_000)], 401),
        (bearer(FIRST) * 2, 401),
        ([*bearer("wrong"), *bearer(FIRST)], 401),
        ([(b"x-authorization", f"Bearer {FIRST}".encode())], 401),
        ([(b"proxy-authorization", f"Bearer {FIRST}".encode())], 401),
        ([(b"cookie", f"authorization=Bearer {FIRST}".encode())], 401),
        ([], 401),
    ],
)
def test_two_authorization_headers_are_refused(headers: list[tuple[bytes, bytes]], status: int) -> None:
    assert call(gate_of({TOKENS: FIRST}), "/score", headers) == status


def test_a_token_in_the_address_is_none() -> None:
    gate = gate_of({TOKENS: FIRST})
    assert call(gate, "/score", query_string=f"token={FIRST}&authorization=Bearer%20{FIRST}".encode()) == 401


def test_all_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []
    real = hmac.compare_digest

    def watched(a: Any, b: Any) -> bool:
        compared.append((len(a), len(b)))
        return real(a, b)

    monkeypatch.setattr(access.hmac, "compare_digest", watched)
    tokens = Tokens({TOKENS: f"{FIRST} {SECOND} third-token-0123456789"})
    for candidate in (FIRST, SECOND, "x", ""):
        compared.clear()
        tokens.accept(candidate)
        assert compared == [(32, 32)] * 3, "every token, whether or not one was found, and digests of one length"


@pytest.mark.parametrize("tokens", ["short", "x" * (SHORTEST_TOKEN - 1), f"{FIRST} short", "Ünsichtbar-0123456789"])
def test_unusable_tokens_are_refused(tokens: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fewer than 16 characters, or one beyond ASCII") as raised:
        Tokens({TOKENS: tokens})
    assert tokens not in str(raised.value)
    (tmp_path / "tokens").write_text(tokens.replace(" ", "\n"), encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be used"):
        Tokens({TOKENS_FILE: str(tmp_path / "tokens")})


def test_a_missing_token_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{TOKENS_FILE}=.*nowhere cannot be used"):
        Tokens({TOKENS_FILE: str(tmp_path / "nowhere")})


def test_an_empty_file_lets_nobody_in(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("# none yet\n\n")
    gate = gate_of({TOKENS_FILE: str(tmp_path / "tokens")})
    assert [call(gate, "/score", headers) for headers in ([], bearer(""), bearer("# none yet"))] == [401] * 3
    assert call(gate, "/livez") == 200


def test_tokens_rotate_with_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "CHECK_INTERVAL_S", -1.0)
    path, at = tmp_path / "tokens", iter(range(1, 9))
    gate = gate_of({TOKENS: SECOND, TOKENS_FILE: str(_written(path, f"# old\r\n{FIRST}\r\n", next(at)))})

    def let_in() -> list[int]:
        return [call(gate, "/score", bearer(token)) for token in (FIRST, SECOND, "newer-token-0123456789")]

    assert let_in() == [200, 200, 401]
    _written(path, f"{FIRST}\nnewer-token-0123456789", next(at))
    assert let_in() == [200, 200, 200]
    _written(path, "newer-token-0123456789", next(at))
    assert let_in() == [401, 200, 200]
    _written(path, "short", next(at))
    assert let_in() == [401, 200, 200], "a file that cannot be used leaves the tokens as they were"
    path.unlink()
    assert let_in() == [401, 200, 200]
    _written(path, FIRST, next(at))
    assert let_in() == [200, 200, 401]


def _written(path: Path, text: str, at: int) -> Path:
    path.write_text(text, newline="")
    os.utime(path, (at, at))
    return path


def test_open_paths_and_their_imitations() -> None:
    gate = gate_of({TOKENS: FIRST})
    assert {path: call(gate, path) for path in OPEN} == dict.fromkeys(OPEN, 200)
    decoded = [path.replace("%2e", ".").replace("%2f", "/").replace("%00", "\0").replace("%20", " ") for path in TRICKS]
    assert {path: call(gate, path) for path in decoded} == dict.fromkeys(decoded, 401)


@pytest.mark.parametrize(
    ("server", "status"),
    [
        (("127.0.0.1", 3000), 200),
        (("127.8.9.1", 3000), 200),
        (("::1", 3000), 200),
        (("/run/journeylab.sock", None), 403),
        (("192.0.2.7", 3000), 403),
        (("0.0.0.0", 3000), 403),
        (("2001:db8::1", 3000), 403),
        (("example.org", 3000), 403),
        (None, 200),
    ],
)
def test_without_tokens_only_loopback_is_answered(server: Any, status: int) -> None:
    gate = gate_of({})
    for path in ("/score", "/metrics", "/"):
        assert call(gate, path, server=server) == status
    assert call(gate, "/score", bearer(FIRST), server=server) == status, "a token that nobody configured opens nothing"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"localhost:3000", 200),
        (b"LOCALHOST", 200),
        (b"127.0.0.1:3000", 200),
        (b"[::1]:3000", 200),
        (b"rebound.example:3000", 403),
        (b"localhost.example", 403),
        (b"127.0.0.1.example:3000", 403),
        (b"", 403),
        (b"\xff\x00", 403),
    ],
)
def test_dns_rebinding_is_refused(host: bytes, status: int) -> None:
    assert call(gate_of({}), "/score", [(b"host", host)]) == status
    with_token = gate_of({TOKENS: FIRST})
    assert call(with_token, "/score", [*bearer(FIRST), (b"host", host)]) == 200, "a token is enough under any name"


def test_documented_routes_want_a_token(champions: Champions) -> None:
    client = Client(TokenGate(application(champions), Tokens({TOKENS: FIRST})))
    paths = service_of(champions).document["paths"]
    expected = {(method, path) for path, methods in paths.items() for method in methods}
    assert {("post", "/churn"), ("post", "/score"), ("post", "/score_batch"), ("get", "/model")} <= expected
    for method, path in sorted(expected):
        response = client.request(method.upper(), path, content=b"{")
        assert (paths[path][method].get("security") == []) == (path in OPEN_PATHS), "what the page shows is true"
        if path in OPEN_PATHS:
            assert response.status_code != 401
            continue
        assert (response.status_code, response.json(), response.headers["www-authenticate"]) == (
            401,
            {"error": NO_TOKEN},
            "Bearer",
        )
        authorized = client.request(method.upper(), path, content=b"{", headers={"Authorization": f"Bearer {FIRST}"})
        assert authorized.status_code != 401


def test_public_addresses_want_tokens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(TOKENS, raising=False)
    monkeypatch.delenv(TOKENS_FILE, raising=False)
    with pytest.raises(ConfigError, match=f"'0.0.0.0' can be reached by others and no tokens .* {TOKENS_FILE}"):
        command("journeylab:latest", host="0.0.0.0")
    with pytest.raises(ConfigError, match="can be reached by others"):
        serve("journeylab:latest", host="0.0.0.0")
    monkeypatch.setenv(TOKENS, "short")
    for host in ("0.0.0.0", "127.0.0.1"):
        with pytest.raises(ConfigError, match="fewer than 16 characters"):
            command("journeylab:latest", host=host)
    monkeypatch.setenv(TOKENS, FIRST)
    expected = command("journeylab:latest", host="0.0.0.0", port=free_port())
    assert expected[expected.index("--host") + 1] == "0.0.0.0"
    with pytest.raises(ConfigError, match=r"'example\.org' is no IP address"):
        command("journeylab:latest", host="example.org")
    assert "127.0.0.1" in command("journeylab:latest", host="localhost", port=free_port())


# A bento in service ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bento(scoring_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("JOURNEYLAB_HOME", str(tmp_path_factory.mktemp("own")))
        yield package([scoring_folder]).tag


def ask(port: int, method: str, path: str, headers: Mapping[str, str] = {}, body: bytes = b"{}") -> tuple[int, bytes]:
    """A request whose path goes out as it stands."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in ({"Content-Length": str(len(body))} | dict(headers)).items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.slow
def test_a_served_bento_is_closed(bento: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, log = tmp_path / "tokens", tmp_path / "log.txt"
    _written(tokens, FIRST, 1)
    monkeypatch.setenv(TOKENS_FILE, str(tokens))
    authorized = {"Authorization": f"Bearer {FIRST}"}
    with running(bento, log=log) as url:
        port = int(url.rpartition(":")[2])
        document = json.loads(ask(port, "GET", "/openapi.json", body=b"")[1])
        for path, methods in document["paths"].items():
            for method in methods:
                status = ask(port, method.upper(), path)[0]
                assert (path, status == 401) == (path, path not in OPEN_PATHS)
        for path in OPEN:
            assert (path, ask(port, "GET", path, body=b"")[0]) == (path, 200)
        for path in TRICKS:
            for method in ("GET", "POST", "PUT", "OPTIONS"):
                assert (path, ask(port, method, path)[0]) == (path, 401)
            assert 200 <= ask(port, "POST", path, authorized)[0] < 500, path
        assert ask(port, "POST", "/churn", authorized)[0] == 422
        _written(tokens, SECOND, 2)
        after = [ask(port, "POST", "/churn", {"Authorization": f"Bearer {SECOND}"})[0] for _ in _for_seconds(2.5)]
        assert after[-1] == 422
        assert ask(port, "POST", "/churn", authorized)[0] == 401
        figures = ask(port, "GET", "/metrics", body=b"")[1].decode()
    assert 'endpoint="/churn"' in figures
    assert 'endpoint="other"' in figures
    assert "static_content/.." not in figures, "paths that are none of ours are no labels"
    written = log.read_text()
    assert not [secret for secret in (FIRST, SECOND, "Traceback") if secret in written]


def _for_seconds(seconds: float) -> Iterator[None]:
    import time

    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield
        time.sleep(0.25)


@pytest.mark.slow
def test_a_served_bento_without_tokens_answers_loopback(bento: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKENS, raising=False)
    monkeypatch.delenv(TOKENS_FILE, raising=False)
    with running(bento) as url:
        assert ask(int(url.rpartition(":")[2]), "POST", "/churn")[0] == 422
