"""Drift between groups: the matrix, the drift of each component, and which grouping separates best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from filterdb.analysis.drift import drift
from filterdb.numerics.linkage import average_linkage
from filterdb.page import tables
from filterdb.page.leave_one_out import LeaveOneOut, without_models
from filterdb.page.pair_verdicts import farthest, judges, standings
from filterdb.page.payload import pack
from filterdb.page.results import GROUP_LIMIT, GROUPINGS, LABELS, Results, family_of_models, groups
from filterdb.page.section import Picture, Section, Table
from filterdb.plotting import box_numbers, figures
from filterdb.plotting.drawing import visible_all
from filterdb.verdicts import JUDGED_BY, VERDICTS

NO_GROUPS = "There are no groups to compare, because every label has fewer than two known values."


class Drift(Section):
    """The drift between all pairs of groups."""

    position = 40
    title = "Drift"
    template = """\
<section id="drift">
<h2>Drift between groups</h2>
<p>Drift measures how differently two groups distribute their filters over the {{ weights }} components; 0 means equal distributions. Groups of few filters or few models differ by chance alone{% if judged %}, so each pair is compared with the drift that chance explains{% endif %}.</p>
{{ figure("heatmap", "Drift between all pairs of groups", "Bright cells have the largest drift" ~ ("; hatched cells are “like noise” or “related”, crossed ones “cannot tell”" if judged else "") ~ ". Point at a cell to see its numbers. Click it, or press Enter, to compare the two groups.", "drift", "drift", each=true, parquet="pairs", holds="the matrix, a row and a column for each group", parquet_holds="every pair: drift, chance, interval, verdict", more=more) }}
{{ figure("components", "Drift of each component", "Each box shows the middle half of all pairs of groups. The farther right a box is, the more differently the groups use the component.", "components", "components", each=true, holds="the numbers of the boxes") }}
{{ figure("groupings", "Drift by grouping", "The drift of all pairs of groups, for each grouping. Labels whose groups differ more are farther right.", "groupings", "groupings", holds="the numbers of the boxes") }}
</section>
"""  # noqa: E501

    def __init__(self, results: Results) -> None:
        super().__init__(results)
        self.groupings = dict(results.drifts)
        if 2 <= groups(results.db, "conv_depth", results.mode) <= GROUP_LIMIT:  # P2 fig. 4 has absolute depth too
            self.groupings["conv_depth"] = drift(results.db, "conv_depth", mode=results.mode, noise=False)
        self.leave_one_out = {
            by: without_models(results.db, by, results.mode) for by in results.drifts if by != "model"
        }

    def is_listed(self) -> bool:
        """Return whether there are groups."""
        return bool(self.results.drifts)

    def missing(self) -> list[tuple[str, str]]:
        """Return the groupings that are not shown."""
        if not self.is_listed():
            return [("drift and distributions", NO_GROUPS)]
        notes = [(by.replace("_", " "), why) for by, why in self.results.notes.items() if by in GROUPINGS]
        return [(f"drift by {by}", f"{by.capitalize()} {why}.") for by, why in notes]

    def context(self) -> dict[str, Any]:
        """Return whether pairs are judged, and the further files of the matrix's menu."""
        drifts = self.results.drifts
        pairs = [by for by, result in drifts.items() if farthest(result) is not None]
        more = [(f"the farthest pair by {by.replace('_', ' ')}", f"pair_{by}", "") for by in pairs]
        if _families(self.results) is not None:
            more.insert(0, ("the matrix of models, by family", "families", ""))
        return {"judged": any("verdict" in result for result in drifts.values()), "more": more}

    def core(self) -> Any:
        """Return a box for each grouping, over all its pairs of groups."""
        return {"groupings": box_numbers.as_json(box_numbers.by_grouping(self.groupings))}

    def data(self) -> dict[str, Any]:
        """Return a data file for each grouping."""
        return {
            f"drift_{by}": _drift_data(self.results, result, self.leave_one_out.get(by, {}))
            for by, result in self.results.drifts.items()
        }

    def pictures(self) -> Iterator[Picture]:
        """Yield the matrix, components and farthest pair of each grouping, then the groupings and the families."""
        drifts = self.results.drifts
        for by, result in drifts.items():
            yield Picture(f"drift_{by}", partial(figures.heatmap, result))
            yield Picture(f"components_{by}", partial(figures.per_component, result))
            pair = farthest(result)
            if pair is not None:
                a, b = (str(result["group"].values[i]) for i in pair)
                yield Picture(f"pair_{by}", partial(figures.pair, result, a, b))
        if drifts:
            yield Picture("groupings", partial(figures.groupings, self.groupings))
        family = _families(self.results)
        if family is not None:
            yield Picture("families", partial(figures.families, drifts["model"], family))

    def tables(self) -> Iterator[Table]:
        """Yield the matrix, the pairs and the components of each grouping, and the groupings."""
        for by, result in self.results.drifts.items():
            pairs = tables.pair_facts(result)
            yield Table(f"drift_{by}", tables.matrix(result))
            yield Table(f"pairs_{by}", pairs, len(pairs) <= tables.LONG)
            if "per_component" in result:
                yield Table(f"components_{by}", tables.box_rows(box_numbers.by_component(result)))
        if self.results.drifts:
            yield Table("groupings", tables.box_rows(box_numbers.by_grouping(self.groupings)))


def _families(results: Results) -> np.ndarray | None:
    """Return the family of each group of the drift by model, (group,); None if there are fewer than two."""
    if "model" not in results.drifts:
        return None
    family = family_of_models(results.db, results.drifts["model"])
    return family if len(np.unique(family)) > 1 else None


def _drift_data(results: Results, result: xr.Dataset, without: LeaveOneOut) -> dict[str, Any]:
    """Return the data of a `drift` result for the page's scripts."""
    by = str(result.attrs["by"])
    data: dict[str, Any] = {
        "by": by,
        "ordered": by == "depth_decile",
        "groups": visible_all(result["group"].values),
        "counts": pack(result["count"].values),
        "few": pack(result["few"].values),
        "probabilities": pack(result["probabilities"].values.ravel()),
        "components": box_numbers.as_json(box_numbers.by_component(result)) if "per_component" in result else [],
        "farthest": farthest(result),
    }
    for name in ("drift", "floor_q95", "model_floor_q95", "layer_floor_q95", "q_value", "detectable"):
        if name in result and np.isfinite(result[name].values).any():
            data[name] = pack(box_numbers.pairs(result[name].values))
    if "verdict" in result:
        data["verdict"] = pack(_positions(result["verdict"].values, [verdict.code for verdict in VERDICTS]))
        data["judged"] = pack(_positions(judges(result), JUDGED_BY))
        standing = box_numbers.pairs(standings(result))
        if standing.any():
            data["standing"] = pack(standing)
    if "units" in result:
        data["units"] = pack(result["units"].values)
    data["bounded"] = "interval" in result
    if "interval" in result and np.isfinite(result["interval"].values).any():
        data["level"] = result["interval"].attrs["level"]
        data["low"], data["high"] = (pack(box_numbers.pairs(result["interval"].values[..., bound])) for bound in (0, 1))
    position = {str(label): i for i, label in enumerate(result["group"].values)}
    data["without"] = {
        ",".join(map(str, sorted((position[a], position[b])))): [
            (np.searchsorted(results.model_index, model), value) for model, value in rows
        ]
        for (a, b), rows in without.items()
    }
    if not data["ordered"] and result.sizes["group"] > 2:
        steps = average_linkage(result["drift"].values)
        data["clusters"] = {"left": pack(steps.left), "right": pack(steps.right), "height": pack(steps.distance)}
    if by == "model":
        models = results.db.models
        rows = models.isel(model=models["layers"].values > 0).to_dataframe().reset_index().set_index("model")
        rows = rows.loc[result["group"].values]
        data["labels"] = {name: visible_all(rows[name]) for name in LABELS if rows[name].nunique() > 1}
    return data


def _positions(words: np.ndarray, known: Sequence[str]) -> np.ndarray:
    """Return the index in `known` of the word of each pair of groups, (pairs,) uint8; 0 for others."""
    values = box_numbers.pairs(words.astype(str))
    return np.select([values == word for word in known], range(len(known)), 0).astype(np.uint8)


SECTION = Drift
