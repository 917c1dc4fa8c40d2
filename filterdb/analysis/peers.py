"""Compare the layers of checked files with those of a reference or a database that have the same kernel shape."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from filterdb.analysis.reference import Reference, reference_of
from filterdb.analysis.shared_filters import FileLayers, find_shared
from filterdb.numerics.percentiles import layer_classes
from filterdb.schema import KERNEL, has_bank, kernel_name, parse_shape

if TYPE_CHECKING:
    from filterdb.columns import Columns
    from filterdb.store.database import Database

PLACED = {"sparsity_percentile": "sparsity", "ratio_percentile": "ratio"}
"""The measures with a percentile among the layers of the same depth decile and size class."""

PEER_MEASURES = {
    "percentile": "share of layers of its size and similar depth with a smaller H, ties half, in percent",
    "percentile_peers": "number of these layers",
    "sparsity_percentile": "share of like layers that are less sparse, ties half, in percent",
    "ratio_percentile": "share of like layers with a smaller H / T_H, ties half, in percent",
    "peers": "layers of the reference or database in the same depth decile and size class",
}
"""A layer's place among its peers."""


def add_peers(result: Columns, references: dict[str, Reference]) -> None:
    """Add PEER_MEASURES: the place of each layer among the layers of its kernel shape, depth decile and size class.

    `references` has the layers to compare with, by the name of their kernel shape. Layers of other shapes have none.
    """
    shapes, layers = result["kernel"].values, len(result["kernel"].values)
    places = {name: np.full(layers, np.nan) for name in PEER_MEASURES}
    places["peers"], places["percentile_peers"] = np.zeros(layers, np.int64), np.zeros(layers, np.int64)
    classes = layer_classes(result["filters"].values, result["conv_depth_norm"].values)
    for name, reference in references.items():
        here = (shapes == name) & (result["unread_code"].values == "")  # a layer that was not read has no peers
        like = classes[here]
        places["peers"][here] = reference.peers(like)
        placed, number = reference.nearby(result["variance_entropy"].values[here], like)
        places["percentile"][here], places["percentile_peers"][here] = placed, number
        for key, measure in PLACED.items():
            places[key][here] = reference.percentiles(measure, result[measure].values[here], like)
    for name, doc in PEER_MEASURES.items():
        result[name] = ("layer", places[name], {"long_name": doc})
    result.attrs["reference"] = json.dumps(_described(references))


def _described(references: dict[str, Reference]) -> dict[str, Any]:
    """Return the place and facts of the references, whose layers and filters are added up, and their shapes."""
    parts = list(references.values())
    added = {name: sum(part.facts[name] for part in parts) for name in ("layers", "filters")}
    return {"place": parts[0].place, **parts[0].facts, **added, "kernels": list(references)}


def add_database(result: Columns, db: Database) -> None:
    """Add PEER_MEASURES and `stored_in` by the layers of a database, or of a view, which has only one kernel shape."""
    from filterdb.analysis.degeneration import judge_layers

    compared = banks_compared(db, result["kernel"].values)
    references = {name: reference_of(judge_layers(bank), db.url) for name, bank in compared.items()}
    if not references:
        references = {kernel_name(db.kernel): reference_of(judge_layers(db), db.url)}
    for name, bank in compared.items():
        _add_stored(result, bank, result["kernel"].values == name)
    add_peers(result, references)
    if len(compared) > 1:  # a model may have layers of several shapes
        facts = json.loads(result.attrs["reference"])
        result.attrs["reference"] = json.dumps({**facts, "models": _models(list(compared.values()))})
    result.attrs.update({"snapshot": db.snapshot, "database": db.url, "corpus": " and ".join(db.conditions) or "all"})


def banks_compared(db: Database, kernels: np.ndarray) -> dict[str, Database]:
    """Return the filters of a database to compare layers with, by the names of their kernel shapes, (layers,)."""
    banks = {name: _bank(db, name) for name in np.unique(kernels.astype(str)).tolist()}
    return {name: bank for name, bank in banks.items() if bank is not None}


def _bank(db: Database, name: str) -> Database | None:
    """Return the filters of a kernel shape to compare with, if there are any."""
    if not name or not has_bank(parse_shape(name)):
        return None
    kernel = parse_shape(name)
    if db.chosen is not None and kernel != db.kernel:
        return None
    bank = db if kernel == db.kernel else db.bank(kernel)
    return bank if bank.layer_columns.sizes["layer"] or kernel == KERNEL else None


def _models(banks: list[Database]) -> int:
    """Return the number of models that have layers in any of these."""
    names: set[str] = set()
    for bank in banks:
        models = bank.model_columns
        names.update(models["model"].values[models["layers"].values > 0].astype(str).tolist())
    return len(names)


def _add_stored(result: Columns, bank: Database, here: np.ndarray) -> None:
    """Set `stored_in` of some of the layers: the first layer of the bank with the same filters."""
    layers = result.isel(layer=here)
    hashes, fingerprints = (layers[name].values.astype(str).tolist() for name in ("hash", "fingerprint"))
    stored = find_shared(bank, FileLayers(hashes, fingerprints, layers["filters"].values)).stored
    labels = bank.layer_columns["layer"].values
    names = result["stored_in"].values.copy()
    names[here] = [str(labels[i]) if i >= 0 else "" for i in stored.tolist()]
    result["stored_in"] = ("layer", names)
