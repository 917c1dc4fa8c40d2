"""The tables of all segments of a snapshot, read with few requests, as one array for each variable.

For every page of a snapshot's list of segments (see `pages`), an object holds the tables of its segments, one after the
other. It is made when it is first missed and may be deleted at any time: what counts are the segments' own tables.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np

from filterdb import schema
from filterdb.errors import DamageError, StoreError
from filterdb.plan import offsets
from filterdb.schema import Variable
from filterdb.store import pack
from filterdb.store.files import Files
from filterdb.store.pages import Entry, Page, paginate
from filterdb.store.tables import completed, read_many

log = logging.getLogger(__name__)

Columns = dict[str, np.ndarray]
"""Every variable of schema.TABLES by name, of one or more segments. `model_index` counts the models of each segment."""


class StoredTables(Sequence[Columns]):
    """The tables of segments: `columns` of all, and the tables of one by its position.

    `columns` have the layers of all banks, under the names of `schema.in_pack`. The tables of a segment have those of
    one bank, whose variables are `variables`; `entries` have its sizes.
    """

    def __init__(
        self, columns: Columns, entries: Sequence[Entry], variables: Sequence[Variable] = schema.TABLES
    ) -> None:
        self.columns = columns
        self._variables = variables
        sizes = {
            name: [getattr(entry, f"{name}s" if name != "skipped" else name) for entry in entries] for name in _DIMS
        }
        self._bounds = {name: offsets(np.array(rows, np.int64)) for name, rows in sizes.items()}
        self._count = len(entries)

    def bank(self, bank: str, entries: Sequence[Entry]) -> StoredTables:
        """Return the tables with the layers of a bank instead of the 3×3 ones. `entries` are those of the bank."""
        variables = schema.variables_of(bank)
        names = {schema.in_pack(bank, variable.name): variable for variable in variables}
        own = {v.name: self.columns[name] if name in self.columns else v.array([]) for name, v in names.items()}
        columns = {variable.name: self.columns[variable.name] for variable in _OF_MODELS} | own
        return StoredTables(columns, entries, (*variables, *_OF_MODELS))

    def followed_by(self, tables: Columns, entries: Sequence[Entry]) -> StoredTables:
        """Return the tables of one more segment after these. `entries` are all segments."""
        return StoredTables(
            _concatenate([self.columns, completed(tables)]) if len(self) else completed(tables), entries
        )

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, position: int) -> Columns:  # type: ignore[override]
        if not -self._count <= position < self._count:
            raise IndexError(position)
        rows = {name: slice(*bounds[position % self._count :][:2]) for name, bounds in self._bounds.items()}
        return {variable.name: self.columns[variable.name][rows[variable.dims[0]]] for variable in self._variables}

    def __iter__(self) -> Iterator[Columns]:
        return (self[position] for position in range(self._count))

    @property
    def first_model(self) -> np.ndarray:
        """Position among all models of the first model of each layer's segment, (layers,)."""
        return np.repeat(self._bounds["model"][:-1], np.diff(self._bounds["layer"]))


_DIMS = ("layer", "model", "skipped")
_OF_MODELS = (*schema.MODEL_VARIABLES, *schema.SKIPPED_VARIABLES)


def read_all(files: Files, segments: tuple[Entry, ...]) -> StoredTables:
    """Read the tables of a snapshot's segments. Raises DamageError."""
    pages, rest = paginate(segments)
    joined = _read_pages(files, pages) if pages else []
    return StoredTables(_concatenate([*joined, *_read_own(files, rest)]), segments)


def _read_own(files: Files, entries: Sequence[Entry]) -> list[Columns]:
    return read_many([(entry.segment(files), entry.digests) for entry in entries]) if entries else []


def _concatenate(parts: Sequence[Columns]) -> Columns:
    if not parts:
        return {variable.name: variable.array([]) for variable in schema.TABLES}
    if len(parts) == 1:
        return parts[0]
    names = dict.fromkeys(name for part in parts for name in part)  # a bank need not be in all of them
    return {name: np.concatenate([part[name] for part in parts if name in part]) for name in names}


def joined_name(page_id: str) -> str:
    """Return the name of the object with the tables of a page's segments."""
    return f"tables/{page_id}.safetensors"


def page_of(name: str) -> str:
    """Return the id of the page that an object with joined tables or summaries belongs to."""
    return name.split("/")[1].removesuffix(".safetensors")


def _read_pages(files: Files, pages: Sequence[Page]) -> list[Columns]:
    """Read the tables of each page, or those of its parts if the page's object is missing or damaged."""
    contents = files.read_many([joined_name(page.id) for page in pages])
    return [_decode(files, page, contents.get(joined_name(page.id))) or _join(files, page) for page in pages]


def _decode(files: Files, page: Page, data: bytes | None) -> Columns | None:
    if data is None:
        return None
    try:
        columns, metadata = pack.decode(data, files.url(joined_name(page.id)))
    except DamageError as error:
        log.warning("%s; made again from the segments", error)
        return None
    # Another version may have other variables.
    is_usable = metadata.get("page") == page.id and metadata.get("format") == str(schema.FORMAT)
    return completed(columns) if is_usable else None


def _join(files: Files, page: Page) -> Columns:
    """Join the tables of a page's parts, and store the result if the store can be written."""
    columns = _concatenate(_read_pages(files, page.pages) if page.pages else _read_own(files, page.entries))
    metadata = {"page": page.id, "format": str(schema.FORMAT)}
    try:
        files.put({joined_name(page.id): pack.encode(columns, metadata)})
    except StoreError as error:
        log.debug("tables of a page not stored: %s", error)
    return columns


def check_joined(files: Files, page: Page, own: Sequence[Columns]) -> str | None:
    """Return what is wrong with the object of a page's tables, given those of its segments; None if nothing is."""
    data = files.read_many([joined_name(page.id)]).get(joined_name(page.id))
    if data is None:
        return None
    try:
        columns, _ = pack.decode(data, files.url(joined_name(page.id)))
    except DamageError as error:
        return str(error)
    for name, expected in _concatenate(own).items():
        got = columns.get(name)
        if got is not None and not np.array_equal(got, expected, equal_nan=expected.dtype.kind == "f"):
            return f"expected {name} of its segments, got other values; delete it, it is made again"
    return None
