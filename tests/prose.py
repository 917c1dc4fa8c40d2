"""Check that the docstrings of functions start with a verb: `python -m tests.prose`, a part of `make lint`."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "filterdb"

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


def _is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("property" in ast.unparse(decorator) for decorator in node.decorator_list)


def main() -> int:
    """Print what is wrong; return the exit code."""
    wrong = 0
    for path in sorted(PACKAGE.rglob("*.py")):
        name = str(path.relative_to(PACKAGE))
        others = list(other_docstrings(path))
        for line, text in others:
            wrong += 1
            print(f"filterdb/{name}:{line}: expected a verb first, got: {text}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
