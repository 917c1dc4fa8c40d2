"""What reading one model file may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What reading one model file may take. A file that needs more is rejected.

    Examples
    --------
    >>> import filterdb as fdb
    >>> fdb.Limits(seconds=60).cpu(1_000_000_000)
    70
    """

    memory: int = 2 * 2**30
    """Bytes of memory."""

    seconds: float = 20.0
    """CPU seconds, plus one for every `rate` bytes of the file and its external data.

    The limit on elapsed time is 1.5 times as long, plus 10 seconds.
    """

    rate: int = 100_000_000
    """Bytes per additional CPU second."""

    def cpu(self, size: int) -> int:
        """Return the CPU seconds for a file of `size` bytes."""
        return max(1, round(self.seconds + size / self.rate))
