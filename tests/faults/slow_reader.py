"""Make this process read models by `tests.faults.crashing`: as a worker's preload, or in front of the command line."""

from __future__ import annotations

from filterdb.models import scan

scan.READER = "tests.faults.crashing"


def main() -> None:
    """Run the command line."""
    from filterdb import commands

    commands.main()


if __name__ == "__main__":
    main()
