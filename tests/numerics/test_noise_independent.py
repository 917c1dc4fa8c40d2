"""Run the independent script on the table of docs/explanation/noise.md with a few trials."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "noise_independent.py"


def test_the_script_agrees_with_the_table() -> None:
    """Four pairs of groups: a false alarm in each would be ten standard errors from the published 5 %."""
    args = [sys.executable, str(SCRIPT), "--trials", "4", "--draws", "100", "--rows", "0"]
    done = subprocess.run(args, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"\d errors apart$", done.stdout, re.MULTILINE)) == 3
    assert "2 | 8 | 1 | threefold | normal" in done.stdout


def test_the_script_has_no_code_of_filterdb() -> None:
    imported = re.findall(r"^(?:from|import) (\w+)", SCRIPT.read_text("utf-8"), re.MULTILINE)
    assert set(imported) == {"__future__", "argparse", "re", "sys", "pathlib", "typing", "numpy", "scipy"}
