"""Where a verdict begins, and which verdicts fail a check (method §5). Imports nothing slow: a check starts with it."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from filterdb.errors import UsageError

VERDICTS = ("dead", "sparse", "collapsed", "random")
"""What the filters of a layer alone can tell."""

UNREAD_RULES = ("unread", "ambiguous")
"""Rules for layers that should have been read and were not; such a layer has no numbers."""

LAYER_RULES = (*VERDICTS, "nonfinite", "duplicate", "outlier", "dead-channels", *UNREAD_RULES)
"""What a check of files can find in a layer; `nonfinite` layers have no numbers either."""

FILE_RULES = ("unreadable", "nothing-checked")
"""What a check can find of a whole file: it is no readable model, or has no 3×3 layer."""

CHECKS = (*LAYER_RULES, *FILE_RULES)
"""Everything that a check of files can find."""

FAIL = ("dead", "random", "nonfinite", *UNREAD_RULES, *FILE_RULES)
"""Fails a check by default: what no healthy model has, and what was not checked.

`collapsed` only warns: two of eight healthy models have such a layer (a depthwise one of 96 filters, a deep one that
uses 1.7 directions). `sparse` and `duplicate` are no faults. `outlier` and `dead-channels` are worth a look, but a
model that has them can be as accurate as one that has not.
"""


LAYER_MEASURES = {
    "filters": "number of filters n",
    "sparsity": "S: share of filters whose |w| are all below peak/100",
    "variance_entropy": "H of the layer's own raw PCA (P1 eq. 7)",
    "threshold": "T_H(n) (P1 eq. 8)",
    "ratio": "H / T_H, NaN where T_H <= 0",
    "peak": "largest |w|",
    "scale_known": "false where an integer weight's scale could not be found",
}
"""What is measured of a layer, in a database or in a file."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Where a verdict begins. P1 gives none beyond T_H(n): these are ours."""

    sparse: float = 0.5
    """A layer is sparse where its share S of sparse filters is above this."""

    collapsed: float = 2.0
    """A layer is collapsed where 10^H, how many directions it uses, is below this."""

    random: float = 1.0
    """A layer is random where H is at least this many times T_H(n)."""

    smallest: int = 64
    """Filters from which on a layer can be collapsed or random."""

    smallest_paper: int = 3
    """The same for random layers in `paper` mode."""

    untrained_sparsity: float = 0.01
    """A model is untrained where all its layers are random and less sparse than this."""

    duplicate: float = 0.1
    """A layer has duplicates where its share of filters that equal an earlier one of it is above this."""

    outlier: float = 20.0
    """A layer has an outlier where its peak is at least this many times the upper quartile of its channels' peaks.

    In 356 layers of 34 trained models from package registries the ratio is at most 8.2 (median 1.5).
    """

    dead_channels: float = 0.0
    """A layer has dead channels where its share of output channels that are all zero is above this."""

    fail: tuple[str, ...] = FAIL
    """The verdicts that fail a check."""

    ignore: tuple[str, ...] = ()
    """Layers whose verdicts do not count, as patterns of `fnmatch`: LAYER or FILE:LAYER."""


SETTINGS = (
    "sparse", "collapsed", "random", "smallest", "duplicate", "outlier", "dead_channels", "fail", "ignore",
)  # fmt: skip
"""What a file of rules may set."""

_UPPER = {"sparse": 1.0, "duplicate": 1.0, "dead_channels": 1.0, "collapsed": 9.0}


def rules_of(given: Rules | Mapping[str, Any] | str | os.PathLike[str] | None) -> Rules:
    """Rules from a TOML or YAML file (by its ending), from a mapping, or as they are; None: the defaults.

    Raises UsageError, one line, for a file that cannot be read, an unknown key, or a value that does not fit.
    """
    if given is None or isinstance(given, Rules):
        return given or Rules()
    if isinstance(given, Mapping):
        return _checked(given, "rules")
    path = Path(given)
    try:
        text = path.read_text(encoding="utf-8")
        values = yaml.safe_load(text) if path.suffix.lower() in {".yaml", ".yml"} else tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path}: expected rules in TOML (or YAML, by .yaml), got {reason}") from error
    if values is not None and not isinstance(values, Mapping):
        raise UsageError(f"{path}: expected keys with values, got a {type(values).__name__}")
    return _checked(values or {}, str(path))


def _checked(given: Mapping[str, Any], where: str) -> Rules:
    # A rule's threshold is set under the rule's name as well.
    values = {"dead_channels" if key == "dead-channels" else key: value for key, value in given.items()}
    for key, value in values.items():
        if key not in SETTINGS:
            raise UsageError(f"{where}: expected one of the keys {', '.join(SETTINGS)}, got {key!r}")
        if key in {"fail", "ignore"}:
            _check_names(f"{where}: {key}", value, CHECKS if key == "fail" else None)
        elif isinstance(value, bool) or not isinstance(value, int if key == "smallest" else int | float):
            kind = "a whole number" if key == "smallest" else "a number"
            raise UsageError(f"{where}: {key}: expected {kind}, got {value!r}")
        elif not 0 <= value <= _UPPER.get(key, np.inf):
            limit = f"from 0 to {_UPPER[key]:g}" if key in _UPPER else "of at least 0"
            raise UsageError(f"{where}: {key}: expected a number {limit}, got {value!r}")
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return replace(Rules(), **fields)


def _check_names(where: str, value: Any, known: tuple[str, ...] | None) -> None:
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise UsageError(f"{where}: expected a list of texts, got {value!r}")
    unknown = [] if known is None else [name for name in value if name not in known]
    if unknown:
        raise UsageError(f"{where}: expected a list out of {', '.join(known or ())}, got {unknown[0]!r}")


def is_ignored(file: str, layer: str, patterns: Sequence[str]) -> bool:
    """Whether a layer's verdicts do not count, by patterns of `Rules.ignore`; a whole file's where `layer` is empty."""
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in (layer, f"{file}:{layer}"))


def settings(rules: Rules) -> dict[str, Any]:
    """What a file could have set, by key."""
    return {key: value for key, value in asdict(rules).items() if key in SETTINGS}


def judge(
    filters: np.ndarray,
    sparsity: np.ndarray,
    entropy: np.ndarray,
    threshold: np.ndarray,
    dead: np.ndarray,
    rules: Rules,
    smallest: int,
) -> dict[str, np.ndarray]:
    """VERDICTS of layers, (layers,) bool each; where S and H are NaN only `dead` can be true.

    `filters` n, `sparsity` S, `entropy` H, `threshold` T_H(n), `dead` (peak = 0), all (layers,); `smallest`: filters
    from which on a layer can be random. Source: method §5.
    """
    return {
        "dead": dead,
        "sparse": sparsity > rules.sparse,
        "collapsed": (filters >= rules.smallest) & (10**entropy < rules.collapsed),
        "random": (entropy > 0) & (entropy >= rules.random * threshold) & (filters >= smallest),
    }
