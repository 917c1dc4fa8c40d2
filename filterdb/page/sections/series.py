"""Checkpoints of a training, and retrainings of an architecture."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from filterdb.page import tables
from filterdb.page.results import Results
from filterdb.page.section import Picture, Section, Table
from filterdb.plotting import figures
from filterdb.plotting.drawing import visible, visible_all

RETRAINING_FACTS = ("seeds", "mean_drift", "largest_drift", "to_nearest", "nearest", "to_others")


class Series(Section):
    """Drift during training and between retrainings."""

    position = 70
    title = "During training"
    template = """\
<section id="series">
<h2>During training</h2>
{{ figure("series", "Checkpoints and retrainings", "Lines show the drift of each checkpoint to the last one of its training; thin lines show the drift that chance alone explains. The table compares trainings with different seeds with each other and with the nearest other training.", "series", "series", holds="the drift of each checkpoint", more=more) }}
</section>
"""  # noqa: E501

    def __init__(self, results: Results) -> None:
        super().__init__(results)
        self.series, self.why_missing = results.trainings

    def is_listed(self) -> bool:
        """Return whether there are checkpoints or retrainings."""
        return self.series is not None

    def missing(self) -> list[tuple[str, str]]:
        """Return why there are none."""
        return [] if self.is_listed() else [("during training", self.why_missing)]

    def context(self) -> dict[str, Any]:
        """Return the further file of the menu."""
        return {"more": [("the pairs of retrainings", "", "retrainings")]}

    def core(self) -> Any:
        """Return checkpoints by training, and retrainings."""
        if self.series is None:
            return None
        checkpoints = self.series[["training", "model", "epoch", "drift", "floor_q95"]].to_dataframe()
        columns = (("xs", "epoch"), ("values", "drift"), ("floor", "floor_q95"))
        return {
            "trainings": [
                {
                    "label": visible(label),
                    "names": visible_all(part["model"]),
                    **{key: part[column].tolist() for key, column in columns},
                }
                for label, part in checkpoints.groupby("training", sort=False)
            ],
            "retrainings": [
                {**row, "retraining": visible(row["retraining"]), "nearest": visible(row["nearest"])}
                for row in self.series[list(RETRAINING_FACTS)].to_dataframe().reset_index().to_dict("records")
            ],
        }

    def pictures(self) -> Iterator[Picture]:
        """Yield the figure of both."""
        if self.series is not None:
            yield Picture("series", partial(figures.series, self.series))

    def tables(self) -> Iterator[Table]:
        """Yield checkpoints and pairs of retrainings."""
        if self.series is not None:
            yield Table("series", tables.checkpoints(self.series))
            yield Table("retrainings", tables.retrainings(self.series))


SECTION = Series
