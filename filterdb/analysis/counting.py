"""Define how models count when groups are compared: which are independent, what each weighs, how noise is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypedDict

from filterdb.analysis.noise import Noise


class CountingOptions(TypedDict, total=False):
    """Name the keyword arguments of `drift` that say how models count, each with the type of its value.

    A dictionary of this type holds what several calls share.

    Examples
    --------
    >>> options: fdb.CountingOptions = {"unit": "task", "noise": 200}
    >>> fdb.drift(db, "visual_category", **options).attrs["equal_models"]
    0
    """

    noise: Noise
    unit: str | None
    equal_models: bool


@dataclass(frozen=True)
class Counting:
    """Hold how models count when groups are compared; `drift` documents each field."""

    noise: Noise = None
    unit: str | None = None
    equal_models: bool = False

    @classmethod
    def of(cls, function: str, options: Mapping[str, Any]) -> Counting:
        """Return the keyword arguments of `function` as one object. Raises TypeError for an unknown one."""
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")
        return cls(**options)
