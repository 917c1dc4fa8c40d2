"""Write and read references: the layers of a database, small enough to ship, to compare single models with."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from filterdb.errors import InputError, UsageError
from filterdb.numerics.depth import DECILES
from filterdb.numerics.percentiles import SIZES, by_class, class_percentiles, counts, layer_classes, nearby_percentiles
from filterdb.schema import KERNEL, Kernel, as_kernel, kernel_name
from filterdb.version import __version__

if TYPE_CHECKING:
    from filterdb.columns import Columns
    from filterdb.store.database import AnyDatabase

Floats = npt.NDArray[np.float64]

FORMAT, VERSION = "filterdb reference", 1

MEASURES = {"sparsity": 1.0, "ratio": math.inf, "variance_entropy": 1.0}
"""The measures of a layer in a reference, and the largest value of each for 3×3 filters."""

SIZES_OF_SAMPLES = ((81, 300), (41, 100), (21, 30), (9, 0))
"""Most values of a measure in a class, and most models that a reference names; the first that fits MAX_WRITTEN.

Where a class has more layers, the reference has quantiles: 81 of them are exact to 0.7 percentile.
"""

MAX_WRITTEN = 200_000
"""Most bytes that are written."""

DIGITS = 6
"""Significant digits of the values."""

MAX_BYTES = 4 * 2**20
"""Largest file that is read as a reference; those that filterdb writes are far smaller."""

MAX_TEXT = 1_000
"""Most characters of a text in a reference."""

PACKAGED = "packaged"
"""The place of the reference that filterdb contains."""

_TEXTS = ("filterdb_version", "licence", "selection")
_COUNTS = ("models", "layers", "filters")
_DESCRIBED = (*_COUNTS, "licence", "filterdb_version")
_SOURCE_COLUMNS = ("family", "architecture", "training_dataset", "package", "url")


@dataclass(frozen=True, eq=False)
class Reference:
    """Hold the layers to compare with, by class (see `layer_classes`).

    Attributes
    ----------
    place : str
        Where it is from: a path, the URL of a database, or PACKAGED.
    facts : dict
        Its counts and licence.
    layers : dict
        The number of layers of each class.
    values : dict
        For each of MEASURES, the sorted values of each class.
    is_rounded : bool
        Whether values have DIGITS digits, so that what is compared with them is rounded too.
    kernel : tuple of int
        The shape of the layers' filters. Layers of another shape cannot be compared with them.
    """

    place: str
    facts: dict[str, Any]
    layers: dict[int, int]
    values: dict[str, dict[int, Floats]]
    is_rounded: bool = True
    kernel: Kernel = KERNEL

    def percentiles(self, name: str, values: Floats, classes: npt.NDArray[np.int64]) -> Floats:
        """Return the percentile of each value of a measure among the layers of its class."""
        return class_percentiles(_rounded(values) if self.is_rounded else values, classes, self.values[name])

    def nearby(self, values: Floats, classes: npt.NDArray[np.int64]) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Return the percentile of each entropy among layers of its size and similar depth, and their number."""
        values = _rounded(values) if self.is_rounded else values
        return nearby_percentiles(values, classes, self.values["variance_entropy"], self.layers)

    def peers(self, classes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the number of layers in each class."""
        return np.array([self.layers.get(int(kind), 0) for kind in classes], np.int64)


def reference_of(measured: Columns, place: str) -> Reference:
    """Return the layers of a `degeneration` result as a reference, with full precision."""
    classes = layer_classes(measured["filters"].values, measured["conv_depth_norm"].values)
    values = {name: by_class(measured[name].values, classes) for name in MEASURES}
    facts = {name: int(measured.attrs[name]) for name in ("models", "layers", "filters")}
    kernel = as_kernel(measured.attrs.get("kernel", KERNEL))
    return Reference(place, facts, counts(classes), values, is_rounded=False, kernel=kernel)


def write_reference(db: AnyDatabase, output: str | os.PathLike[str], *, licence: str = "not stated") -> dict[str, Any]:
    """Write a small file with which `check` compares layers without a database.

    It has the number of layers, and quantiles of their sparsity, entropy and H / T_H, for each depth decile and size
    class; no weights. At most 200 KB.

    Parameters
    ----------
    db : Database, str or path
        The database or a view of it.
    output : str or path
        The JSON file to write.
    licence : str
        The licence under which the file may be used. Default: "not stated".

    Returns
    -------
    dict
        What the file says about itself: format, version, filterdb_version, licence, selection; kernel, if it is not
        3×3; models, layers and filters (int); sources, up to 300 of the models with their labels.

    Raises
    ------
    UsageError
        If the file cannot be written.
    InputError
        If the view has no layers.

    Examples
    --------
    >>> facts = fdb.write_reference(db.where("task", ["detection"]), "detectors.json", licence="CC0-1.0")
    >>> facts["models"], facts["layers"], facts["sources"][0]["model"]
    (2, 6, 'detector-10')
    >>> fdb.check("models/fresh.onnx", reference="detectors.json")["percentile"].values
    array([100., 100., 100.])
    """
    from filterdb.analysis.degeneration import judge_layers
    from filterdb.analysis.grouping import with_depth
    from filterdb.store.database import as_database
    from filterdb.store.shapes import no_filters

    db = as_database(db)
    if not db.layer_columns.sizes["layer"]:
        raise no_filters(db)
    db = with_depth(db, "depth_decile")
    reference = reference_of(judge_layers(db), db.url)
    sources = _sources(db.model_columns)
    facts: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "filterdb_version": __version__,
        "licence": licence,
        "selection": " and ".join(db.conditions) or "all",
        **({} if db.kernel == KERNEL else {"kernel": kernel_name(db.kernel)}),
        "models": len(sources),
        "layers": int(sum(reference.layers.values())),
        "filters": int(db.counts["filters"]),
    }
    facts, data = _encoded(facts, reference, sources)
    try:
        Path(output).write_bytes(data)
    except OSError as error:
        raise UsageError(f"{os.fspath(output)}: cannot write the file: {error.strerror}") from error
    return facts


def _encoded(
    facts: dict[str, Any], reference: Reference, sources: list[dict[str, str]]
) -> tuple[dict[str, Any], bytes]:
    """Return the facts with as many sources as fit, and the bytes of the file."""
    data = b""
    for sample, listed in SIZES_OF_SAMPLES:
        facts = {**facts, "sources": sources[:listed]}
        text = json.dumps({**facts, "classes": _classes(reference, sample)}, separators=(",", ":"))
        data = (text.replace('{"depth"', '\n{"depth"') + "\n").encode()
        if len(data) <= MAX_WRITTEN:
            break
    return facts, data


def _sources(models: Columns) -> list[dict[str, str]]:
    """Return the name and known labels of each model with layers."""
    columns = {name: models[name].values.astype(str) for name in ("model", *_SOURCE_COLUMNS) if name in models}
    listed = []
    for i in np.flatnonzero(models["layers"].values > 0):
        labels = {name: str(values[i])[:100] for name, values in columns.items()}
        listed.append({name: label for name, label in labels.items() if label not in {"", "unknown"}})
    return listed


def _classes(reference: Reference, sample: int) -> list[dict[str, Any]]:
    """Return an entry for each class, with at most `sample` values of each measure."""
    entries = []
    for kind, layers in sorted(reference.layers.items()):
        decile, size = divmod(kind, SIZES)
        values = {name: _sample(reference.values[name][kind], sample) for name in MEASURES}
        entries.append({"depth": DECILES[decile], "decile": decile, "size": size, "layers": layers, **values})
    return entries


def _sample(values: Floats, most: int) -> list[float]:
    """Return the values, or `most` quantiles of them if there are more."""
    if len(values) > most:
        values = np.quantile(values, (np.arange(most) + 0.5) / most)
    rounded: list[float] = _rounded(values).tolist()
    return rounded


def _rounded(values: Floats) -> Floats:
    return np.array([float(f"{value:.{DIGITS}g}") for value in values.tolist()], np.float64)


def read_reference(path: str | os.PathLike[str] | None) -> Reference:
    """Read a reference from a file, None: the packaged one. Raises InputError, one line, for anything else."""
    if path is None:
        packaged = resources.files("filterdb.analysis").joinpath("reference.json")
        return _parsed(packaged.read_bytes(), PACKAGED)
    place = os.fspath(path)
    try:
        status = Path(place).stat()
        is_small_file = stat.S_ISREG(status.st_mode) and status.st_size <= MAX_BYTES
        data = Path(place).read_bytes() if is_small_file else b""
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{place}: expected a reference file, got: {reason}") from error
    if not is_small_file:
        raise _invalid(place, f"no regular file, or one of more than {MAX_BYTES:,} bytes")
    return _parsed(data, place)


def _parsed(data: bytes, place: str) -> Reference:
    """Return the reference in the bytes of a file, which may be damaged or hostile."""
    try:
        content = json.loads(data.decode("utf-8"), parse_constant=_reject_constant)
    except (ValueError, RecursionError) as error:
        raise _invalid(place, "no JSON") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise _invalid(place, "JSON of another kind")
    if content.get("version") != VERSION:
        raise InputError(
            f"{place}: expected version {VERSION} of a reference, got {str(content.get('version'))[:20]!r}; "
            "make it again with `filterdb reference`"
        )
    texts, counted, lists = (
        [content.get(name) for name in names] for names in (_TEXTS, _COUNTS, ("sources", "classes"))
    )
    if not all(isinstance(text, str) and len(text) <= MAX_TEXT for text in texts):
        raise _invalid(place, f"a file without {', '.join(_TEXTS)}")
    if not all(type(count) is int and 0 <= count < 2**63 for count in counted):
        raise _invalid(place, f"a file without numbers of {', '.join(_COUNTS)}")
    if not all(isinstance(entries, list) for entries in lists):
        raise _invalid(place, "a file without lists of sources and classes")
    try:
        kernel = as_kernel(content.get("kernel", KERNEL))
    except UsageError as error:
        raise _invalid(place, "an unknown 'kernel'") from error
    largest_entropy = max(MEASURES["variance_entropy"], math.log10(kernel[0] * kernel[1]) + 10.0**-DIGITS)
    limits = {**MEASURES, "variance_entropy": largest_entropy}
    layers: dict[int, int] = {}
    values: dict[str, dict[int, Floats]] = {name: {} for name in MEASURES}
    for entry in content["classes"]:
        if not isinstance(entry, dict) or not _has_numbers(entry, {"decile": (0, 9), "size": (0, SIZES - 1)}):
            raise _invalid(place, "a class without a valid 'decile' and 'size'")
        kind = SIZES * entry["decile"] + entry["size"]
        if kind in layers or not _has_numbers(entry, {"layers": (1, content["layers"])}):
            raise _invalid(place, "a class that is repeated, or without a valid number of 'layers'")
        layers[kind] = entry["layers"]
        for name, largest in limits.items():
            values[name][kind] = _checked_values(entry.get(name), entry["layers"], largest, place)
    return Reference(place, {name: content[name] for name in _DESCRIBED}, layers, values, kernel=kernel)


def _has_numbers(entry: Mapping[str, Any], ranges: Mapping[str, tuple[int, int]]) -> bool:
    return all(type(entry.get(name)) is int and low <= entry[name] <= high for name, (low, high) in ranges.items())


def _checked_values(values: Any, most: int, largest: float, place: str) -> Floats:
    """Return the sorted values of a measure. Raises InputError for anything else."""
    is_list = isinstance(values, list) and len(values) <= most
    if not is_list or not all(type(value) in (int, float) and 0 <= value <= largest for value in values):
        raise _invalid(place, "a class whose values are no numbers in their range")
    try:
        array = np.array(values, np.float64)
    except OverflowError as error:
        raise _invalid(place, "a class with a number that is too large") from error
    if not np.isfinite(array).all() or (np.diff(array) < 0).any():
        raise _invalid(place, "a class whose values are not sorted")
    return array


def _reject_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _invalid(place: str, got: str) -> InputError:
    return InputError(f"{place}: expected a reference as `filterdb reference` writes it, got {got}")
