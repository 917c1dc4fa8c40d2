"""Define the thresholds of verdicts, and which verdicts fail a check.

Imports nothing slow, because a check starts with this module.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filterdb.errors import UsageError
from filterdb.schema import WEIGHTS
from filterdb.wording import meant

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from filterdb.numerics.modes import Mode

VERDICTS = ("dead", "sparse", "collapsed", "random")
"""Verdicts that follow from the filters of a layer alone."""

UNREAD_RULES = ("unread", "ambiguous")
"""Rules for layers that should have been read and were not. Such a layer has no numbers."""

LAYER_RULES = (*VERDICTS, "nonfinite", "duplicate", "outlier", "dead-channels", *UNREAD_RULES)
"""Rules that a check of files applies to a layer. A `nonfinite` layer has no numbers either."""

MODEL_RULES = ("untrained",)
"""Rules for all layers of a model together."""

FILE_RULES = ("unreadable", "nothing-checked")
"""Rules that a check applies to a whole file: it is not a readable model, or has no layer that can be judged."""

CHECKS = (*LAYER_RULES, *MODEL_RULES, *FILE_RULES)
"""All rules of a check of files."""

FAIL = ("dead", "untrained", "nonfinite", *UNREAD_RULES, *FILE_RULES)
"""Rules that fail a check by default: those that no healthy model breaks, and those for what was not checked.

`random` only warns: accurate networks have layers that hardly moved from their initialisation.
`collapsed` only warns: two of eight healthy models have such a layer (a depthwise one of 96 filters, a deep one that
uses 1.7 directions). `sparse` and `duplicate` are not faults. `outlier` and `dead-channels` deserve a look, but a model
that has them can be as accurate as one without.
"""


LEAST_COMPARED = 4
"""Filters of fewer weights, and 1×1 output channels of fewer, are not compared with others of their layer.

In eight bits, two or three weights have so few values that many are equal by chance: of 4,096 filters of two weights,
about one in five.
"""

LAYER_MEASURES = {
    "filters": "number of filters n",
    "sparsity": "S: share of filters whose |w| are all below peak/100",
    "variance_entropy": "H of the layer's own raw PCA (P1 eq. 7)",
    "threshold": "T_H(n) (P1 eq. 8)",
    "ratio": "H / T_H, NaN where T_H <= 0",
    "p_value": "probability that isotropic noise departs from sphericity at least as far",
    "relative_spread": "root mean square distance of filters from their mean / norm of the mean",
    "peak": "largest |w|",
    "scale_known": "false where an integer weight's scale could not be found",
}
"""Measures of a layer, in a database or in a file."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Set the thresholds of verdicts. P1 defines only T_H(n); the others are filterdb's own."""

    sparse: float = 0.5
    """A layer is sparse if its share S of sparse filters is above this."""

    collapsed: float = 2.0
    """A layer is collapsed if 10^H, the number of directions it uses, is below this.

    For K < 9 weights the bound is K^(log₉ of this): the same share of the largest entropy, log₁₀ K.
    """

    constant: float = 0.1
    """A layer is also collapsed if its filters are nearly equal: if their relative spread is below this."""

    random_p: float = 0.001
    """A layer is random if its p-value is at least this: if a test cannot tell its filters from isotropic noise."""

    random: float | None = None
    """A layer is random only if H is also at least this many times T_H(n). None: 1 in `paper` mode, else any H."""

    smallest: int = 64
    """Smallest number of filters of a layer that can be collapsed or random.

    A random layer of K > 128 weights has at least K/2 filters, because the test needs them.
    """

    smallest_paper: int = 3
    """Smallest number of filters of a layer that can be random in `paper` mode."""

    untrained_sparsity: float = 0.01
    """A model is untrained if all its layers are random and less sparse than this."""

    duplicate: float = 0.1
    """A layer has duplicates if more than this share of its filters equal an earlier one of the layer."""

    outlier: float = 20.0
    """A layer has an outlier if its peak is at least this many times the upper quartile of its channels' peaks.

    In 356 layers of 34 trained models from package registries the ratio is at most 8.2 (median 1.5).
    """

    dead_channels: float = 0.0
    """A layer has dead channels if more than this share of its output channels are all zero."""

    fail: tuple[str, ...] = FAIL
    """The rules that fail a check."""

    ignore: tuple[str, ...] = ()
    """Layers whose verdicts do not count: `fnmatch` patterns of LAYER or FILE:LAYER."""


SETTINGS = (
    "sparse", "collapsed", "constant", "random", "random_p", "smallest", "duplicate", "outlier", "dead_channels",
    "fail", "ignore",
)  # fmt: skip
"""Keys of a file of rules."""

_LARGEST = {"sparse": 1.0, "duplicate": 1.0, "dead_channels": 1.0, "collapsed": 9.0, "random_p": 1.0}
"""Largest values; other numbers have none. `collapsed` is for filters of nine weights."""


def as_rules(rules: Rules | Mapping[str, Any] | str | os.PathLike[str] | None) -> Rules:
    """Return rules as they are, from a mapping, or from a TOML or YAML file (by its suffix); None: the defaults.

    Raises UsageError, one line, for a file that cannot be read, an unknown key, or an invalid value.
    """
    if rules is None or isinstance(rules, Rules):
        return rules or Rules()
    if isinstance(rules, Mapping):
        return _from_mapping(rules, "rules")
    import tomllib

    import yaml

    path = Path(rules)
    try:
        text = path.read_text(encoding="utf-8")
        values = yaml.safe_load(text) if path.suffix.lower() in {".yaml", ".yml"} else tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path}: expected rules in TOML (or YAML, by .yaml), got {reason}") from error
    if values is not None and not isinstance(values, Mapping):
        raise UsageError(f"{path}: expected keys with values, got a {type(values).__name__}")
    return _from_mapping(values or {}, str(path))


def _from_mapping(settings: Mapping[str, Any], where: str) -> Rules:
    """Return rules with some settings changed; UsageError, which begins with `where`, for an invalid one."""
    # The rule is called dead-channels: accept its own name as the key of its threshold.
    values = {"dead_channels" if key == "dead-channels" else key: value for key, value in settings.items()}
    for key, value in values.items():
        if key not in SETTINGS:
            raise UsageError(
                f"{where}: expected one of the keys {', '.join(SETTINGS)}, got {key!r}{meant(str(key), SETTINGS)}"
            )
        if key == "random" and value is None:
            continue
        if key in {"fail", "ignore"}:
            _check_names(f"{where}: {key}", value, CHECKS if key == "fail" else None)
        elif isinstance(value, bool) or not isinstance(value, int if key == "smallest" else int | float):
            kind = "a whole number" if key == "smallest" else "a number"
            raise UsageError(f"{where}: {key}: expected {kind}, got {value!r}")
        elif not 0 <= value <= _LARGEST.get(key, math.inf):
            limit = f"from 0 to {_LARGEST[key]:g}" if key in _LARGEST else "of at least 0"
            raise UsageError(f"{where}: {key}: expected a number {limit}, got {value!r}")
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return replace(Rules(), **fields)


def _check_names(where: str, value: Any, known: tuple[str, ...] | None) -> None:
    """Raise UsageError unless `value` is a list of texts, all `known` if those are given."""
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise UsageError(f"{where}: expected a list of texts, got {value!r}")
    unknown = [] if known is None else [name for name in value if name not in known]
    if unknown:
        hint = meant(unknown[0], known or ())
        raise UsageError(f"{where}: expected a list out of {', '.join(known or ())}, got {unknown[0]!r}{hint}")


def is_ignored(file: str, layer: str, patterns: Sequence[str]) -> bool:
    """Return whether patterns of `Rules.ignore` match a layer, or a whole file if `layer` is empty."""
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in (layer, f"{file}:{layer}"))


def as_settings(rules: Rules) -> dict[str, Any]:
    """Return the values that a file of rules can set, by key."""
    return {key: value for key, value in asdict(rules).items() if key in SETTINGS}


def fewest_directions(collapsed: float, weights: int | npt.NDArray[np.int64]) -> Any:
    """Return the number of directions 10^H below which a layer of filters of K weights is collapsed.

    `collapsed` is that number for nine weights. Fewer than two directions means that filters are nearly multiples of
    one another, whatever their size. Filters of K < 9 weights cannot use more than K directions, so for them the bound
    is the same share of the largest entropy as for nine.
    """
    share = math.log(max(collapsed, 1e-300)) / math.log(WEIGHTS)
    if isinstance(weights, int):
        return collapsed if weights >= WEIGHTS else weights**share
    bound = weights.astype(float) ** share
    bound[weights >= WEIGHTS] = collapsed
    return bound


def judge(
    layers: Mapping[str, npt.NDArray[Any]],
    dead: npt.NDArray[np.bool_],
    rules: Rules,
    mode: Mode,
    weights: int | npt.NDArray[np.int64] = WEIGHTS,
) -> dict[str, npt.NDArray[np.bool_]]:
    """Return each of VERDICTS as an array (layers,). Where measures are NaN, only `dead` can be true.

    Parameters
    ----------
    layers : mapping
        The LAYER_MEASURES of each layer, (layers,) each.
    dead : ndarray (layers,) of bool
        Whether the peak is 0.
    rules : Rules
        The thresholds.
    mode : Mode
        In `sound` mode a test decides what is random, in `paper` mode the entropy.
    weights : int or ndarray (layers,) of int64
        Number of weights of a filter.

    Notes
    -----
    Source: docs/explanation/method.md, docs/explanation/randomness.md.
    """
    filters, entropy = layers["filters"], layers["variance_entropy"]
    collapsed = 10**entropy < fewest_directions(rules.collapsed, weights)
    random = (entropy > 0) & (filters >= mode.smallest_random(rules))
    least = rules.random
    if mode.tests_randomness:
        collapsed |= layers["relative_spread"] < rules.constant
        random &= layers["p_value"] >= rules.random_p
    elif least is None:
        least = 1.0
    if least is not None:
        random &= entropy >= least * layers["threshold"]
    return {
        "dead": dead,
        "sparse": layers["sparsity"] > rules.sparse,
        "collapsed": (filters >= rules.smallest) & collapsed,
        "random": random,
    }
