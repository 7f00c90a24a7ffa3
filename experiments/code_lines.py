"""Count the product's lines of code: `python -m experiments.code_lines [FOLDER …]`; see docs/architecture.md."""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from pathlib import Path

PACKAGES = ("features", "models", "training", "serving", "experiments")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
LAYOUT = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
}  # fmt: skip


def code_lines(text: str) -> int:
    r"""The lines of a module that hold code: no blank lines, comments or docstrings.

    >>> code_lines('def f():  # a comment\n    "A docstring."\n\n    return 1\n')
    2
    """
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            docstrings |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    code = {line for token in tokens if token.type not in LAYOUT for line in range(token.start[0], token.end[0] + 1)}
    return len(code - docstrings)


def main() -> None:
    """Print a line for each folder, then the sum."""
    total = 0
    for folder in sys.argv[1:] or PACKAGES:
        files = (path for path in Path(folder).rglob("*.py") if "benchmarks" not in path.parts)
        lines = sum(code_lines(path.read_text(encoding="utf-8")) for path in files)
        total += lines
        print(f"{folder:20}{lines:7,}")
    print(f"{'in all':20}{total:7,}")


if __name__ == "__main__":
    main()
