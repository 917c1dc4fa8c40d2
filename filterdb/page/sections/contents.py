"""What the database holds: models by label, and what is not stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from filterdb.analysis.surveys import statistics
from filterdb.page import tables
from filterdb.page.results import LABELS, Results
from filterdb.page.section import Picture, Section, Table
from filterdb.plotting import figures
from filterdb.plotting.drawing import visible_all
from filterdb.schema import REJECTED

MODEL_COLUMNS = ("model", "task", "visual_category", "training_dataset", "family", "filters", "layers", "producer")


class Contents(Section):
    """Counts of models, layers and filters by label, and the table of models."""

    position = 20
    title = "Contents of the database"
    template = """\
<section id="contents">
<h2>Contents of the database</h2>
{{ figure("contents", "By task, category and training set", "The number of models, layers and filters with each label of the catalog. Bars compare the filters within a column.", "contents", "contents", holds="the counts of every label") }}
<figure aria-labelledby="f-models">
<div class="head"><h3 id="f-models">Models</h3>{{ files(table="models", title="Models", holds="all models with their labels and counts") }}</div>
<p>Click a heading to sort, or a name to open the page of that model; type to search. <a href="model.html">All models</a> lists the status of each.{% if without %} {{ without }} more models have no {{ kernel }} filters that can be stored; the CSV file includes them.{% endif %}{% if skipped %} Convolutions that are not stored: {% for code, number in skipped %}{{ number }} {{ code }}{{ ", " if not loop.last }}{% endfor %}; <code>filterdb layers --skipped</code> lists the reasons.{% endif %}{% if unread %} <b>{{ unread }} of them could not be read although they have {{ kernel }} or unknown kernels.</b>{% endif %}{% if rejected %} Files that are not readable models: {{ rejected }}.{% endif %}</p>
<div data-figure="models"></div>
</figure>
</section>
"""  # noqa: E501

    def __init__(self, results: Results) -> None:
        super().__init__(results)
        self.statistics = statistics(results.db, LABELS)

    def context(self) -> dict[str, Any]:
        """Return the numbers of convolutions and files that are not stored."""
        db = self.results.db
        codes = self.results.skipped["skipped_code"].values.astype(str)
        names, counts = np.unique(codes[codes != REJECTED], return_counts=True)
        return {
            "without": int((db.models["filters"].values == 0).sum()),
            "skipped": list(zip(names.tolist(), counts.tolist(), strict=True)),
            "unread": int(self.results.unread.sizes["skipped"]),
            "rejected": int((codes == REJECTED).sum()),
        }

    def core(self) -> Any:
        """Return the rows of each column of the catalog."""
        table = self.statistics.to_dataframe()
        columns = list(dict.fromkeys(table["column"]))
        parts = ((column, table[table["column"] == column]) for column in columns)
        return [
            {
                "column": column,
                "rows": part.drop(columns="column").assign(label=visible_all(part["label"])).to_dict("records"),
            }
            for column, part in parts
        ]

    def data(self) -> dict[str, Any]:
        """Return the table of models."""
        table = tables.models(self.results.db)
        table = table[table["filters"] > 0]
        shown = [name for name in MODEL_COLUMNS if name in ("model", "filters", "layers") or table[name].nunique() > 1]
        texts = {name: not pd.api.types.is_numeric_dtype(table[name]) for name in shown}
        columns = [{"key": name, "text": is_text} for name, is_text in texts.items()]
        values = {name: visible_all(table[name]) if texts[name] else table[name].tolist() for name in shown}
        return {"models": {"columns": columns, **values}}

    def pictures(self) -> Iterator[Picture]:
        """Yield the figure of the counts."""
        yield Picture("contents", lambda: figures.contents(self.statistics))

    def tables(self) -> Iterator[Table]:
        """Yield the models and the counts."""
        yield Table("models", tables.models(self.results.db))
        yield Table("contents", tables.contents(self.statistics))


SECTION = Contents
