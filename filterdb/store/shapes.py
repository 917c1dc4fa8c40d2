"""Say which kernel shapes a database has, where a view has no filters of its own."""

from __future__ import annotations

from filterdb import schema
from filterdb.errors import InputError
from filterdb.store.database import Database


def filled_shapes(db: Database) -> list[schema.Kernel]:
    """Return the kernel shapes of which the snapshot has filters. No table is read."""
    return [kernel for kernel in db.kernels if any(entry.of(kernel).filters for entry in db.state.segments)]


def no_filters(db: Database, purpose: str = "") -> InputError:
    """Return the error for a view without layers; it names the shapes that the database has. `purpose`: what for."""
    others = [kernel for kernel in filled_shapes(db) if kernel != db.kernel]
    if others:
        has = ", ".join(map(schema.kernel_text, others))
        remedy = f"the database has {has}: choose one, as with --kernel {schema.kernel_name(others[0])}"
    else:
        remedy = "ingest a model that has some"
    shape = schema.kernel_text(db.kernel)
    return InputError(f"{db.url}: expected at least one layer with {shape} filters{purpose}, got none; {remedy}")


def check_has_filters(db: Database) -> None:
    """Raise InputError if a view has no layers, but the database has filters of another shape."""
    if not db.counts["layers"] and filled_shapes(db):
        raise no_filters(db)
