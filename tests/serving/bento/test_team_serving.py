"""Serving for a team: several services behind nginx on one machine, and the manifest for Kubernetes by its schema."""

from __future__ import annotations

import copy
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from kubernetes_validate import ValidationError, validate

from models.scoring.golden_sample import read_sample
from serving.bento.package import package, request_bodies
from serving.bento.serve import free_port

DEPLOY = Path(__file__).resolve().parents[3] / "docs" / "deploy"
TOKEN = "a-token-of-the-team-0001"
KUBERNETES = "1.32"  # the oldest that preStop's sleep needs no switch for
READY_WITHIN_S = 120.0


# Kubernetes


@pytest.fixture
def manifest() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8")))


def of_kind(manifest: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    [resource] = [item for item in manifest if item["kind"] == kind]
    return resource


def test_the_manifest_fits_the_official_schema(manifest: list[dict[str, Any]]) -> None:
    assert [item["kind"] for item in manifest] == ["Deployment", "Service", "PodDisruptionBudget"]
    for item in manifest:
        validate(item, KUBERNETES, strict=True)


@pytest.mark.parametrize("damage", [
    lambda pod: pod["containers"][0].update(livenesProbe={}),
    lambda pod: pod["containers"][0]["readinessProbe"].update(periodSeconds="often"),
    lambda pod: pod["containers"][0]["securityContext"].update(readOnlyRootFileSystem=True),
    lambda pod: pod["containers"][0].pop("name"),
])  # fmt: skip
def test_the_schema_finds_errors(manifest: list[dict[str, Any]], damage: Callable[[Any], Any]) -> None:
    broken = copy.deepcopy(of_kind(manifest, "Deployment"))
    damage(broken["spec"]["template"]["spec"])
    with pytest.raises(ValidationError):
        validate(broken, KUBERNETES, strict=True)


def test_the_pod_is_restricted(manifest: list[dict[str, Any]]) -> None:
    """What the schema cannot say: Kubernetes' own profile "restricted", probes, tokens, and names that meet."""
    deployment = of_kind(manifest, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    guard = container["securityContext"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert guard == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert pod["automountServiceAccountToken"] is False
    assert {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe")} == {"/readyz"}
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert set(container["resources"]["requests"]) == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]
    environment = {item["name"]: item["value"] for item in container["env"]}
    mounts = {item["name"]: item for item in container["volumeMounts"]}
    volumes = {item["name"]: item for item in pod["volumes"]}
    assert Path(environment["JOURNEYLAB_TOKENS_FILE"]).parent == Path(mounts["tokens"]["mountPath"])
    assert volumes["tokens"]["secret"]["secretName"] == "journeylab-tokens"
    assert environment["BENTOML_HOME"].startswith(mounts["temporary"]["mountPath"])
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert of_kind(manifest, "Service")["spec"]["selector"] == labels
    assert of_kind(manifest, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert of_kind(manifest, "Service")["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]


# nginx


@dataclass
class Team:
    """Two services and a proxy: their ports, processes, and what they may be asked."""

    port: int
    services: dict[int, subprocess.Popen[bytes]]
    bodies: dict[str, bytes]
    scores: dict[str, float]

    def ask(self, customer: str, port: int | None = None, token: str | None = TOKEN) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=40)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        try:
            connection.request("POST", "/churn", self.bodies[customer], headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def answered(self, port: int) -> float:
        """How many predictions a service has counted."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        finally:
            connection.close()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if "request_total{" in line and "/churn" in line)


@pytest.fixture(scope="module")
def team(scoring_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("team")
    begun: list[subprocess.Popen[bytes]] = []

    def begin(name: str, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with (folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        begun.append(process)
        return process

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(folder / "bentoml"))
        patch.setenv("JOURNEYLAB_HOME", str(folder / "home"))
        (folder / "tokens").write_text(f"{TOKEN}\n")
        patch.setenv("JOURNEYLAB_TOKENS_FILE", str(folder / "tokens"))
        tag = package([scoring_folder]).tag
        ports = [free_port() for _ in range(3)]
        serve = [sys.executable, "-m", "experiments.cli", "serve", tag]
        root = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        try:
            services = {
                port: begin(f"serve-{port}", [*serve, "--port", str(port)], os.environ | root) for port in ports[1:]
            }
            begin("nginx", _nginx(folder, ports), dict(os.environ))
            for port in (*ports[1:], ports[0]):
                _wait(port, begun, folder)
            events, scores = read_sample(scoring_folder)
            bodies = {customer_id: json.dumps(body).encode() for customer_id, body in request_bodies(events).items()}
            expected = dict(zip(scores["customer_id"], scores["probability"], strict=True))
            yield Team(ports[0], services, bodies, expected)
        finally:
            for process in begun:
                _end(process)


def _nginx(folder: Path, ports: list[int]) -> list[str]:
    """The configuration as it is shipped, on free ports."""
    text = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    for shipped, port in zip((3000, 3001, 3002), ports, strict=True):
        assert f"127.0.0.1:{shipped}" in text
        text = text.replace(f"127.0.0.1:{shipped}", f"127.0.0.1:{port}")
    (folder / "nginx.conf").write_text(text)
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    settings = "daemon off;" + (" user root;" if os.geteuid() == 0 else "")  # the test's folder is its own user's
    return [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr", "-g", settings]


def _wait(port: int, processes: list[subprocess.Popen[bytes]], folder: Path) -> None:
    until = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < until and all(process.poll() is None for process in processes):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.2)
    logs = "\n".join(f"{path.name}:\n{path.read_text()[-1500:]}" for path in folder.glob("*.log"))
    pytest.fail(f"Port {port} was not ready.\n{logs}")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.load
@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("nginx") is None and not Path("/usr/sbin/nginx").exists(), reason="nginx is not installed"
)
def test_two_services_behind_nginx_share_the_load(team: Team) -> None:
    for token in (None, "not-one-of-the-tokens"):
        status, answer = team.ask(next(iter(team.bodies)), token=token)
        assert status == 401
        assert "token" in answer["error"]

    customers = [customer for customer in team.bodies for _ in range(3)]

    def right(customer: str) -> bool:
        status, answer = team.ask(customer)
        return status == 200 and abs(answer["probability"] - team.scores[customer]) < 1e-9

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(right, customers))
        shares = [team.answered(port) for port in team.services]
        assert sum(shares) >= len(customers)
        assert min(shares) >= 0.2 * len(customers), shares

        killed = next(iter(team.services.values()))
        service = psutil.Process(killed.pid)
        for process in [service, *service.children(recursive=True)]:  # its worker has a session of its own
            process.kill()
        killed.wait()
        assert all(threads.map(right, customers)), "no request fails when a service dies"
