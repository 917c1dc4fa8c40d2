"""Answer which model is the odd one out."""

from __future__ import annotations

import numpy as np
import xarray as xr

from filterdb.analysis.noise import FEW
from filterdb.page.answers.tile import CANNOT_TELL, Tile, left_out
from filterdb.page.highlights import address
from filterdb.page.results import Results
from filterdb.plotting.drawing import visible
from filterdb.verdicts import BY_FILTERS, DIFFERENT, TOO_FEW

FEWEST_FOR_OUTLIER = 4
"""Fewest models with enough filters among which one can be called the odd one out."""

CELLS = 24
"""Most cells of a strip."""


def outlier_tile(results: Results) -> Tile:
    """Answer which model is farthest from the others, and whether it stands out."""
    question, result = "Odd one out", results.drifts.get("model")
    enough = np.empty(0, bool) if result is None else ~result["few"].values
    if result is None or enough.sum() < FEWEST_FOR_OUTLIER:
        number = int((results.db.models["filters"].values >= FEW).sum())
        answer = f"This needs {FEWEST_FOR_OUTLIER} models of at least 1,000 filters; there {_are(number)}."
        if number >= FEWEST_FOR_OUTLIER:
            note = results.notes.get("model", "is not compared here")
            answer = f"Models are not compared: the grouping by model {note}."
        return Tile("outlier", question, "unknown", CANNOT_TELL, answer)
    values = result["drift"].values[np.ix_(enough, enough)]
    other = ~np.eye(len(values), dtype=bool)
    rows = np.array([np.sort(row[keep]) for row, keep in zip(values, other, strict=True)])
    medians = np.median(rows, axis=1)
    most, typical = int(np.argmax(medians)), int(np.argsort(medians)[len(medians) // 2])
    low, high = np.quantile(medians, (0.25, 0.75))
    is_far = bool(medians[most] > high + 1.5 * (high - low))
    stands_out = is_far and _mostly_beyond_chance(result, int(np.flatnonzero(enough)[most]))
    name = visible(result["group"].values[enough][most])
    few = int((~enough).sum())
    notes = [f"Among the {enough.sum():,} models of at least 1,000 filters; {left_out(few)}."] if few else []
    notes += ["Chance explains most of its drifts."] if is_far and not stands_out else []
    notes.append("Each cell is the D to another model; yellow is far.")
    cells = np.unique(np.linspace(0, rows.shape[1] - 1, min(CELLS, rows.shape[1])).round().astype(int))
    return Tile(
        "outlier",
        question,
        "warn" if stands_out else "good",
        "stands out" if stands_out else "none stands out",
        f"{'Far' if is_far else 'Farthest, but not by much,'} from the others: median D {medians[most]:.2g}; "
        f"for a typical model it is {np.median(medians):.2g}.",
        names=(name,),
        are_models=True,
        note=" ".join(notes),
        link=("See all models", address("drift", by="model")),
        picture={
            "rows": [[float(f"{value:.4g}") for value in rows[i, cells]] for i in (most, typical)],
            "largest": float(np.nanmax(values)),
        },
    )


def _mostly_beyond_chance(result: xr.Dataset, model: int) -> bool:
    """Return whether most of a model's drifts are larger than chance explains; True where no noise was computed."""
    if "verdict" not in result:
        return True
    codes = np.delete(result["verdict"].values[model].astype(str), model)
    codes = codes[~np.isin(codes, ["", TOO_FEW])]
    return not len(codes) or bool(np.isin(codes, [DIFFERENT, BY_FILTERS]).mean() > 0.5)


def _are(number: int) -> str:
    return f"is {number:,}" if number == 1 else f"are {number:,}"
