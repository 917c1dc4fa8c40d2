"""Build a page for each model of a database: its labels, findings, nearest models, depth, and layers with pictures.

The page of a model is data, which `model_shell.shell` draws; `ModelPages.page` computes it for one model, from results
that are computed already.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from filterdb.analysis.findings import ERROR, MEANINGS, WARNING, Finding, layer_findings
from filterdb.analysis.rules import FAIL, Rules, as_settings
from filterdb.columns import Columns
from filterdb.page import model_data as parts
from filterdb.page import payload
from filterdb.page.bands import bands_of_layers
from filterdb.page.first_filters import affordable_layers, read_filters
from filterdb.page.model_shell import shell
from filterdb.page.results import Results
from filterdb.page.verdict_words import verdict_words
from filterdb.plotting.drawing import visible, visible_all
from filterdb.schema import LABELS, REJECTED, UNKNOWN, kernel_name, kernel_text
from filterdb.version import __version__

NEAREST = 5
"""Number of nearest models that a page shows."""

CHUNKS = 16
"""Most chunks of filters that are read for the pictures of all models."""

MANY_LAYERS, FEW_FILTERS = 5_000, 3
"""Number of layers above which a layer's picture has only so many filters, so that many pages stay small."""

_DATA = re.compile(r"data/models/([0-9]{1,9})\.js")
"""Matches the data file of a model."""

_FACTS = (*LABELS, "source_format", "producer", "opset", "depth_source", "duplicate_of")
"""Columns of the models that a page shows, if they are known."""

_UNKNOWN = {UNKNOWN, "", "0", "none", "nan"}

Kernels = Sequence[tuple[str, str | None]]
"""The kernel shapes of which the model has a page: their texts, and the links to these pages, None for this page."""


class ModelPages:
    """The pages of the models of a view that have layers. `ids` are their positions in `models` of the view."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.ids: list[int] = results.model_index.tolist()
        index = results.db.layers["model_index"].values
        order = np.argsort(index, kind="stable")
        starts = np.searchsorted(index[order], self.ids)
        self._rows = dict(zip(self.ids, np.split(order, starts[1:]), strict=True))
        models = results.db.models
        self._models = {name: models[name].values for name in ("model", *_FACTS) if name in models}

    @cached_property
    def filters(self) -> Mapping[int, npt.NDArray[np.float32]]:
        """The first filters of layers by their position: of all models whose filters are in the first few chunks."""
        picked = affordable_layers(self.results.db, CHUNKS)
        return self._read(picked, parts.FIRST_FILTERS if len(picked) <= MANY_LAYERS else FEW_FILTERS)

    def _read(self, picked: npt.NDArray[np.int64], most: int) -> Mapping[int, npt.NDArray[np.float32]]:
        """Return the first filters of some layers, by the layers' positions."""
        filters = read_filters(self.results.db, picked, most)
        return {int(layer): rows[np.isfinite(rows).all(axis=1)] for layer, rows in zip(picked, filters, strict=True)}

    def page(self, model: int, kernels: Kernels = (), *, read: bool = True) -> dict[str, Any]:
        """Return the data of a model's page. With `read`, its filters are read if they are in few chunks."""
        rows = self._rows[model]
        filters = self.filters
        if read:
            filters = self._read(affordable_layers(self.results.db, CHUNKS, only=model), parts.FIRST_FILTERS)
        listed = self._findings(model)
        judged = self.results.degeneration
        position = {str(name): i for i, name in enumerate(judged["layer_name"].values[rows])}
        cards = parts.finding_cards(listed, position)
        return {
            "facts": self._facts(model),
            "status": self._status(model, cards),
            "numbers": [
                (f"{len(rows):,}", "layer" if len(rows) == 1 else "layers"),
                (f"{int(judged['filters'].values[rows].sum()):,}", f"{kernel_text(self.results.db.kernel)} filters"),
            ],
            "kernels": [list(kernel) for kernel in kernels],
            "findings": cards,
            "nearest": self._nearest(model),
            "layers": self._layers(rows),
            "tiles": parts.tiles([filters.get(int(row)) for row in rows]),
            "skipped": parts.skipped_rows(self._skipped.get(str(self._models["model"][model]), [])),
        }

    def core(self) -> dict[str, Any]:
        """Return the data that the pages of all models share."""
        db = self.results.db
        statuses = [self._status(model, self._findings(model)) for model in self.ids]
        layers = [len(self._rows[model]) for model in self.ids]
        return {
            "title": f"Models of {visible(db.url)}",
            "about": f"{visible(db.url)} · snapshot {db.snapshot}",
            "models": visible_all(self._models["model"][self.ids]),
            "ids": self.ids,
            "tones": [status["tone"] for status in statuses],
            "words": [status["word"] for status in statuses],
            "layers": layers,
            "many": "All models",
            "noun": "model",
            "back": {"href": "index.html", "text": "All figures"},
            "kernel": db.kernel,
            "bands": bands_of_layers(self.results.degeneration, db.kernel),
            "untiled": "First filters are not shown: reading them for all models would take too many chunks. "
            "filterdb report --where 'model=…' shows those of one.",
            "verdicts": verdict_words(),
            "corpus": f"the {len(self.ids):,} models here ({sum(layers):,} layers)",
            "made": f"Made by filterdb {__version__} from snapshot {db.snapshot}, mode {self.results.mode}. "
            "This page loads nothing from the network.",
        }

    def files(self, kernels: Mapping[str, Kernels]) -> dict[str, bytes]:
        """Return the files of the pages; `kernels` has the kernel shapes of each model by name."""
        data = {f"data/models/{model}.js": self._script(model, kernels, read=False) for model in self.ids}
        return {**data, "model.html": shell(self.core())}

    def file(self, path: str, kernels: Mapping[str, Kernels]) -> bytes | None:
        """Return the one of these files with this path, computed for it alone; None if there is no such file."""
        if path == "model.html":
            return shell(self.core())
        match = _DATA.fullmatch(path)
        model = -1 if match is None else int(match[1])
        return self._script(model, kernels, read=True) if model in self._rows else None

    def _script(self, model: int, kernels: Mapping[str, Kernels], *, read: bool) -> bytes:
        """Return the data file of a model."""
        shapes = kernels.get(str(self._models["model"][model]), ())
        return payload.script(f"models/{model}", self.page(model, shapes, read=read))

    def _facts(self, model: int) -> list[tuple[str, str]]:
        """Return what the catalog and the file say of a model, each with its name."""
        values = {name: str(column[model]) for name, column in self._models.items() if name in _FACTS}
        return [(name.replace("_", " "), visible(value)) for name, value in values.items() if value not in _UNKNOWN]

    def _status(self, model: int, findings: Sequence[Any]) -> dict[str, str]:
        """Return the status of a model, given its findings or their cards."""
        layers = len(self._rows[model])
        counted = f"{layers:,} layer{'' if layers == 1 else 's'} judged."
        skipped = self._skipped.get(str(self._models["model"][model]), [])
        unread = sum(row["count"] for row in parts.skipped_rows(skipped) if row["unread"])
        if unread:
            text = f"{counted} {unread:,} convolutions could not be read, so nothing is known about them."
            return {"word": "Incomplete", "tone": parts.BAD, "text": text}
        if not findings:
            return {"word": "No findings", "tone": parts.GOOD, "text": f"{counted} None has a verdict."}
        levels = {card.level if isinstance(card, Finding) else card["tone"] for card in findings}
        is_bad = bool(levels & {ERROR, parts.BAD})
        layers = int(self.results.degeneration["verdict"].values[self._rows[model]].any(axis=1).sum())
        word = f"{layers:,} layer{'' if layers == 1 else 's'} with a verdict" if layers else "Untrained"
        return {
            "word": word,
            "tone": parts.BAD if is_bad else parts.WARN,
            "text": f"{counted} The cards say what to do.",
        }

    def _layers(self, rows: npt.NDArray[np.int64]) -> dict[str, Any]:
        """Return the columns of the table of a model's layers."""
        judged, layers, db = self.results.degeneration, self._layer_columns, self.results.db
        rules = judged["rule"].values.astype(str)

        def numbers(name: str) -> list[Any]:
            values = layers[name] if name in layers else judged[name].values
            return parts.number_list(values[rows])

        columns = {
            "name": visible_all(judged["layer_name"].values[rows]),
            "kernel": [kernel_text(db.kernel)] * len(rows),
            "in": numbers("in_channels"),
            "out": numbers("out_channels"),
            "groups": numbers("groups"),
            "strides": [parts.strides_text(str(text)) for text in layers["strides"][rows]],
            "filters": numbers("filters"),
            "depth": numbers("conv_depth_norm"),
            "sparsity": numbers("sparsity"),
            "entropy": numbers("variance_entropy"),
            "ratio": numbers("ratio"),
            "p": numbers("p_value"),
            "percentile": numbers("percentile"),
            "flags": [rules[hits].tolist() for hits in judged["verdict"].values[rows].astype(bool)],
        }
        return parts.compact(columns)

    @cached_property
    def _layer_columns(self) -> dict[str, npt.NDArray[Any]]:
        layers = self.results.db.layers
        return {name: layers[name].values for name in ("in_channels", "out_channels", "groups", "strides")}

    @cached_property
    def _skipped(self) -> dict[str, list[tuple[str, str, str]]]:
        """The convolutions that are not stored, as layer, code and reason, by model."""
        table = self.results.db.skipped
        columns = (
            table[f"skipped_{name}"].values.astype(str).tolist() for name in ("model", "layer", "code", "reason")
        )
        by_model: dict[str, list[tuple[str, str, str]]] = {}
        for model, layer, code, reason in zip(*columns, strict=True):
            if code != REJECTED:
                by_model.setdefault(model, []).append((layer, code, reason))
        return by_model

    def _findings(self, model: int) -> list[Finding]:
        """Return the findings about a model, those about the whole model first."""
        name = str(self._models["model"][model])
        listed = self._by_model.get(name, [])
        if name not in self._untrained:
            return listed
        level = ERROR if "untrained" in FAIL else WARNING
        return [Finding(name, "", "untrained", level, MEANINGS["untrained"]), *listed]

    @cached_property
    def _untrained(self) -> set[str]:
        judged = self.results.degeneration
        return set(judged["model"].values[judged["untrained"].values].astype(str).tolist())

    @cached_property
    def _by_model(self) -> dict[str, list[Finding]]:
        """The findings about the layers of each model."""
        by_model: dict[str, list[Finding]] = {}
        for finding in layer_findings(_as_checked(self.results)):
            by_model.setdefault(finding.file, []).append(finding)
        return by_model

    def _nearest(self, model: int) -> dict[str, Any]:
        """Return the models with the least drift beyond chance to a model, as `nearest` ranks them."""
        drift = self.results.drifts.get("model")
        if drift is None:
            note = self.results.notes.get("model", "is not compared here")
            return {"rows": [], "note": f"Models are not compared: the grouping by model {note}."}
        groups = self._groups
        here = groups[str(self._models["model"][model])]
        values = {
            name: drift[name].values[here]
            for name in ("drift", "floor", "floor_q95", "layer_floor_q95")
            if name in drift
        }
        floor = values.get("floor", np.zeros(len(groups)))
        few, excess = drift["few"].values, values["drift"] - floor
        order = np.lexsort((values["drift"], np.nan_to_num(excess, nan=np.inf), few))
        order = order[order != here][:NEAREST]
        labels = [str(label) for label in drift["group"].values[order]]
        noise = [values[name][order] for name in ("floor_q95", "layer_floor_q95") if name in values]
        verdict, judged_by = (
            drift[name].values[here][order] if name in drift else [""] * len(order) for name in ("verdict", "judged_by")
        )
        rows = parts.nearest_rows(
            {
                "name": visible_all(labels),
                "id": [f"#{self._positions[label]}" for label in labels],
                "drift": values["drift"][order],
                "noise": np.fmax.reduce(noise) if noise else np.full(len(order), np.nan),
                "excess": excess[order],
                "verdict": [str(code or "") for code in verdict],
                "judged_by": [str(by) for by in judged_by],
                "labels": [self._described(self._positions[label]) for label in labels],
            }
        )
        few_here = "This model has fewer than 1,000 filters, so chance decides much of this order." if few[here] else ""
        return {"rows": rows, "note": few_here}

    def _described(self, model: int) -> str:
        """Return the known task and training set of a model."""
        values = [str(self._models[name][model]) for name in ("task", "training_dataset")]
        return visible(", ".join(value for value in values if value not in _UNKNOWN))

    @cached_property
    def _groups(self) -> dict[str, int]:
        """The position of each model in the drift by model."""
        return {str(label): i for i, label in enumerate(self.results.drifts["model"]["group"].values)}

    @cached_property
    def _positions(self) -> dict[str, int]:
        """The id of each model by name."""
        return {str(self._models["model"][model]): model for model in self.ids}


def _as_checked(results: Results) -> Columns:
    """Return the layers with a verdict in the form of a check's result, so that its sentences can be used."""
    judged, rules = results.degeneration, as_settings(Rules())
    flagged = np.flatnonzero(judged["verdict"].values.any(axis=1))
    names = (
        "filters", "sparsity", "variance_entropy", "relative_spread", "p_value", "percentile", "percentile_peers",
        "direction", "direction_share", "layer_name",
    )  # fmt: skip
    layer = ("layer",)
    return Columns.of(
        {
            **{name: (layer, judged[name].values[flagged]) for name in names},
            "verdict": (("layer", "rule"), judged["verdict"].values[flagged].astype(bool)),
            "layer_file": (layer, judged["layer_model"].values[flagged]),
            "kernel": (layer, np.full(len(flagged), kernel_name(results.db.kernel), object)),
            "duplicate_filters": (layer, np.zeros(len(flagged), np.int64)),
            "ignored": (layer, np.zeros(len(flagged), bool)),
            "unread_code": (layer, np.full(len(flagged), "", object)),
        },
        coords={"rule": judged["rule"].values},
        attrs={"rules": json.dumps(rules)},
    )
