"""Make this process read models by `tests.faults.crashing`: as a worker's preload, or in front of the command line."""

from __future__ import annotations

from dataclasses import replace

from filterdb.models import formats

formats.FORMATS = (replace(formats.ONNX, reader="tests.faults.crashing"),)


def main() -> None:
    """Run the command line."""
    from filterdb import commands

    commands.main()


if __name__ == "__main__":
    main()
