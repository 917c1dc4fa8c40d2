"""Check docstrings and sizes: `python -m tests.prose`, a part of `make lint`.

The docstrings of functions start with a verb; no module has over 500 lines, no function over 60 without its docstring.
Ruff checks that no function has over eight parameters.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "filterdb"

MODULE_LINES = 500
FUNCTION_LINES = 60

_VERBS = """
    Add Allow Announce Answer Append Ask Assign Bring Build Call Check Choose Clear Close Collect Commit Compare Compute
    Convert Copy Count Create Cut Declare Decode Delete Describe Download Draw Drop Encode End Escape Estimate Evaluate
    Exit Expand Explain Fetch Fill Find Fit Flush Fold Follow Fork Format Get Group Hold Import Ingest Install Interrupt
    Join Judge Keep Leave Let List Load Look Make Mark Measure Merge Move Multiply Name Open Parse Permute Pick Prepare
    Print Project Put Quote Raise Rank Read Receive Record Reduce Refuse Register Reject Remove Rename Replace Report
    Reset Reshape Resolve Restore Resume Return Rewrite Run Save Say Scale Scan Select Send Set Show Skip Sort Split
    Start Stop Store Sum Suppress Sync Tag Take Tell Test Turn Undo Update Use Verify Wait Walk Warn Widen Wrap Write
    Yield
"""
VERBS = frozenset(_VERBS.split())


def other_docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and first line of each function's docstring that does not start with a verb."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not _is_property(node):
            docstring = ast.get_docstring(node)
            if docstring and docstring.split()[0].rstrip(",.:;") not in VERBS:
                yield node.lineno, docstring.splitlines()[0]


def long_functions(path: Path) -> Iterator[tuple[int, str, int]]:
    """Yield the line, name and number of lines of each function that is too long."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            start = node.body[0].end_lineno if ast.get_docstring(node) else node.lineno - 1
            lines = (node.end_lineno or 0) - (start or 0)
            if lines > FUNCTION_LINES:
                yield node.lineno, node.name, lines


def _is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("property" in ast.unparse(decorator) for decorator in node.decorator_list)


def main() -> int:
    """Print what is wrong; return the exit code."""
    wrong = 0
    for path in sorted(PACKAGE.rglob("*.py")):
        name = str(path.relative_to(PACKAGE))
        for line, text in other_docstrings(path):
            wrong += 1
            print(f"filterdb/{name}:{line}: expected a verb first, got: {text}")
        for line, function, lines in long_functions(path):
            wrong += 1
            print(f"filterdb/{name}:{line}: {function}: expected at most {FUNCTION_LINES} lines, got {lines}")
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MODULE_LINES:
            wrong += 1
            print(f"filterdb/{name}: expected at most {MODULE_LINES} lines, got {lines}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
