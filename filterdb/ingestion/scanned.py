"""Make the tables of a segment from the scans of its models, and say what fills the rows of its filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import Any

import numpy as np

from filterdb import plan, schema
from filterdb.engine.partition import Partition
from filterdb.ingestion.duplicates import Stored
from filterdb.ingestion.segment_writer import FillRows, stack
from filterdb.ingestion.write import FromModels, Piece
from filterdb.models.sandbox import Limits
from filterdb.models.scan import Scan
from filterdb.models.spool import Spool
from filterdb.store.tables import of_bank

EXTRACTION = 2
"""Version of what is read from a model. It is part of a segment's id, since another version makes other segments."""

THREES = schema.kernel_name(schema.KERNEL)


def build_tables(
    new: list[Scan], rejected: dict[str, str], stored: Stored
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the tables of the new models, and everything else that determines the id of their segment."""
    made_from: dict[str, Any] = {
        "extraction": EXTRACTION,
        "models": [[r.source.id, r.file_hash, dict(r.source.labels), dict(r.source.extra)] for r in new],
        "rejected": rejected,
    }
    layers = layers_by_bank(new, range(len(new)))
    twins = stored.originals([(result.source.id, result.file_hash) for result in new], layers)
    models = [
        {
            "model": result.source.id,
            "file_hash": result.file_hash,
            "duplicate_of": twin,
            **result.source.labels,
            "extra": result.source.extra_json,
            **result.facts,
        }
        for result, twin in zip(new, twins, strict=True)
    ]
    ledger = [(r.source.id, skip.layer, skip.code, skip.reason) for r in new for skip in r.skipped]
    ledger += [(model, "", schema.REJECTED, reason) for model, reason in rejected.items()]
    return {**layers, **stack(models, schema.MODEL_VARIABLES), **ledger_table(ledger)}, made_from


def ledger_table(rows: Sequence[tuple[str, str, str, str]]) -> dict[str, np.ndarray]:
    """Return the table of a ledger: model, layer, code and reason of each row."""
    names = [variable.name for variable in schema.SKIPPED_VARIABLES]
    return stack([dict(zip(names, row, strict=True)) for row in rows], schema.SKIPPED_VARIABLES)


def layers_by_bank(scans: Sequence[Scan], models: Sequence[int]) -> dict[str, np.ndarray]:
    """Return the layers of scanned models, of which `models` are the positions, in a table for each bank.

    Their names are those of `schema.in_pack`. There is always a table of 3×3 layers.
    """
    by_bank: dict[str, list[dict[str, Any]]] = {THREES: []}
    for result, index in zip(scans, models, strict=True):
        for row in result.rows:
            by_bank.setdefault(row["kernel"], []).append(row | {"model_index": index})
        for row in result.others:
            by_bank.setdefault(schema.OTHER, []).append(row | {"model_index": index})
    return {
        schema.in_pack(bank, name): values
        for bank, rows in by_bank.items()
        for name, values in stack(rows, schema.variables_of(bank)).items()
    }


def from_models(
    tables: Mapping[str, np.ndarray], scans: Mapping[int, Scan], limits: Limits, spool: Spool | None = None
) -> FillRows:
    """Return a function that returns, for a partition, what fills it: the models whose layers overlap it.

    `scans` are those of the segment's models, by position.
    """

    @cache
    def layers_of(kernel: schema.Kernel) -> tuple[dict[str, np.ndarray], np.ndarray, list[int]]:
        """Return a bank's layers, the first row of each, and their checksums."""
        name = schema.kernel_name(kernel)
        checksums = [
            checksum
            for position in sorted(scans)
            for row, checksum in zip(scans[position].rows, scans[position].checksums, strict=True)
            if row["kernel"] == name
        ]
        own = of_bank(tables, name)
        return own, plan.offsets(own["row_size"]), checksums

    def filler(partition: Partition) -> FromModels:
        own, bounds, checksums = layers_of(partition.segment.kernel)
        layers = range(partition.first, partition.first + len(partition.peaks))
        pieces = []
        for index, group in groupby(layers, key=lambda layer: int(own["model_index"][layer])):
            own_layers = list(group)
            pieces.append(
                Piece(
                    scans[index].source,
                    tuple(str(own["layer_name"][layer]) for layer in own_layers),
                    tuple(checksums[layer] for layer in own_layers),
                    tuple(int(own["row_size"][layer]) for layer in own_layers),
                    tuple(int(bounds[layer]) for layer in own_layers),
                    partition.segment.kernel,
                )
            )
        return FromModels(tuple(pieces), limits, spool)

    return filler
