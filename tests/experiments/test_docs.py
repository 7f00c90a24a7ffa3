"""The documentation is true: generated pages are current, links lead somewhere, snippets run, commands are commands."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import tomllib
import urllib.request
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest

from experiments import docs
from experiments.readme_picture import SCHEMES
from http_client import Client
from serving.api.application import application
from serving.champions.champions import Champions, Origin
from training.config.experiment import load_experiment

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CHECKED_PAGES = [page for page in PAGES if page.name not in ("scaling.md", "team.md")]  # those have tests of their own
MAKE = (ROOT / "Makefile").read_text(encoding="utf-8")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"")
FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("name", sorted(docs.pages()))
def test_generated_pages_are_as_make_docs_writes_them(name: str) -> None:
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == docs.pages()[name], "run `make docs`"


def anchors(page: Path) -> set[str]:
    """What its headings are called in links."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_link_is_dead(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in (inline or reference for inline, reference in LINK.findall(text)):
        parts = urlparse(link)
        if parts.scheme:
            assert parts.scheme == "https" or parts.hostname in ("127.0.0.1", "localhost"), link
            assert parts.hostname
            assert "." in parts.hostname or parts.hostname == "localhost", link
            continue
        target = (page.parent / parts.path).resolve() if parts.path else page
        assert target.exists(), f"{page.name}: {link}"
        if parts.fragment:
            assert parts.fragment in anchors(target), f"{page.name}: {link}"


def test_named_files_exist() -> None:
    """`experiments/….toml`, `docs/….md`, `features/….py` in the text."""
    for page in PAGES:
        for name in re.findall(
            r"`((?:features|models|training|serving|experiments|docs)/[\w/]+\.\w+)`", page.read_text()
        ):
            assert (ROOT / name).exists(), f"{page.name}: {name}"


def test_pictures_are_small_and_ours() -> None:
    files = {path.name for path in (ROOT / "docs" / "pictures").iterdir()}
    assert {scheme.file for scheme in SCHEMES} <= files
    for path in (ROOT / "docs" / "pictures").iterdir():
        assert path.stat().st_size < 150_000, path.name


def fences(page: Path, language: str) -> list[str]:
    return [text for name, text in FENCE.findall(page.read_text(encoding="utf-8")) if name == language]


@pytest.mark.parametrize("page", CHECKED_PAGES, ids=lambda page: page.name)
def test_toml_is_toml(page: Path) -> None:
    for text in fences(page, "toml"):
        assert tomllib.loads(text)


def test_the_example_of_the_experiment_file_loads(tmp_path: Path) -> None:
    (text,) = fences(ROOT / "docs" / "experiment_file.md", "toml")
    (tmp_path / "demo.toml").write_text(text, encoding="utf-8")
    assert load_experiment(tmp_path / "demo.toml").name == "demo_churn"


def test_the_python_of_serving_runs(scoring_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the service's own application, without a server."""
    shutil.copytree(scoring_folder, tmp_path / "demo_churn")
    Origin("demo_churn", "3", "champion", "run-1", "f00d").write(tmp_path / "demo_churn")
    client = Client(application(Champions(tmp_path)))

    def urlopen(request: urllib.request.Request, timeout: float) -> BytesIO:
        parts = urlparse(request.full_url)
        headers = dict(request.header_items())
        answer = client.request("POST", f"{parts.path}?{parts.query}", content=request.data, headers=headers)
        assert answer.status_code == 200, answer.text
        return BytesIO(answer.content)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    names: dict[str, Any] = {}
    for text in fences(ROOT / "docs" / "serving.md", "python"):
        exec(compile(text, "serving.md", "exec"), names)
    assert list(names["scores"]["customer_id"]) == ["a", "b"]


def commands(text: str) -> Iterator[str]:
    """Every `journeylab …` and `make …` of a page: in fences a line each, continued ones joined; and in backticks."""
    for _, block in FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.split("  #")[0].split(" && "):
                if match := re.match(r"(?:\w+=\S+ )*(?:\.venv/bin/)?((?:journeylab|make) .*)", part.strip()):
                    yield match[1].strip()
    yield from (
        line for line in re.findall(r"`((?:journeylab|make) [^`\n]+)`", FENCE.sub("", text)) if "…" not in line[-2:]
    )


def check_command(command: str) -> None:
    """Raise where the command line would be refused before it did anything."""
    words = [word for word in shlex.split(command) if word not in ("…", "--help")]
    if words[0] == "make":
        for target in (word for word in words[1:] if "=" not in word):
            assert re.search(rf"^{re.escape(target)}:", MAKE, re.MULTILINE), command
        return
    if words[1] == "COMMAND":
        return
    by_name = docs.commands_of()
    assert words[1] in by_name, f"{command}: there is no such command"
    if words[2:]:
        filled = ["1" if word == "N" else word for word in words[2:]]
        by_name[words[1]].make_context(words[1], filled, resilient_parsing=_mentions(words))


def _mentions(words: list[str]) -> bool:
    """A command that is only mentioned, such as `journeylab score --partitions N`, need not be whole."""
    return words[2].startswith("-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNEYLAB_STORAGE", "postgresql+psycopg://someone@somewhere/search")
    for command in commands(page.read_text(encoding="utf-8")):
        try:
            check_command(command)
        except Exception as error:
            pytest.fail(f"{page.name}: {command}: {error}")


@pytest.mark.parametrize("name", sorted(docs.commands_of()))
def test_every_help_has_an_example_that_is_a_command(name: str) -> None:
    text = docs.commands_of()[name].help or ""
    examples = re.findall(r"`(journeylab [^`]+)`", text[text.index("Example") :])
    assert any(example.split()[1] == name for example in examples)
    for example in examples:
        check_command(example)


def test_options_have_help() -> None:
    bare = [(name, option.name) for name, command in docs.commands_of().items()
            for option in command.params if not getattr(option, "help", None)]  # fmt: skip
    assert bare == []


def public(path: Path) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions and methods that others may call."""

    def inside(body: list[ast.stmt], before: str) -> Iterator[tuple[str, ast.FunctionDef]]:
        for node in body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield from inside(node.body, f"{node.name}.")
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield before + node.name, node

    yield from inside(ast.parse(path.read_text(encoding="utf-8")).body, "")


def test_public_functions_say_which_errors_they_raise() -> None:
    """Those that raise an error of ours themselves: ruff asks for the rest of a docstring."""
    silent = []
    for path in docs.modules():
        if "benchmarks" in path.parts:
            continue
        for name, function in public(path):
            raised = [node.exc.func for node in ast.walk(function)
                      if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)]  # fmt: skip
            ours = {call.id for call in raised if isinstance(call, ast.Name)} & {"DataError", "ConfigError"}
            docstring = (ast.get_docstring(function) or "").lower()
            if ours and not any(word in docstring for word in ("raise", "refus", "error")):
                silent.append(f"{path.relative_to(ROOT)}: {name}")
    assert silent == []
