"""Answer which model is the odd one out."""

from __future__ import annotations

import numpy as np
import xarray as xr

from filterdb.analysis.noise import FEW
from filterdb.page.answers.tile import CANNOT_TELL, Line, Tile, left_out
from filterdb.page.highlights import address
from filterdb.page.results import Results
from filterdb.plotting.drawing import visible
from filterdb.verdicts import BY_FILTERS, DIFFERENT, TOO_FEW
from filterdb.wording import counted

FEWEST_FOR_OUTLIER = 4
"""Fewest models with enough filters among which one can be called the odd one out."""


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
    rows = np.array([row[keep] for row, keep in zip(values, other, strict=True)])
    medians = np.median(rows, axis=1)
    most = int(np.argmax(medians))
    low, high = np.quantile(medians, (0.25, 0.75))
    is_far = bool(medians[most] > high + 1.5 * (high - low))
    stands_out = is_far and _mostly_beyond_chance(result, int(np.flatnonzero(enough)[most]))
    names = [visible(name) for name in result["group"].values[enough][np.argsort(-medians, kind="stable")[:2]]]
    few = int((~enough).sum())
    notes = [f"A ranking, not a test, of the {enough.sum():,} models of at least 1,000 filters"]
    notes[0] += f"; {left_out(few)}." if few else "."
    notes += ["Chance explains most of its drifts."] if is_far and not stands_out else []
    notes.append(f"Lines are models; the second farthest is “{names[1]}”.")
    return Tile(
        "outlier",
        question,
        "warn" if stands_out else "good",
        "stands out" if stands_out else "none stands out",
        f"{'Far' if is_far else 'Farthest, but not by much,'} from the others: its median D to them is "
        f"{_short(medians[most])}, the second's {_short(np.sort(medians)[-2])}, a typical model's "
        f"{_short(np.median(medians))}.",
        names=(names[0],),
        lines=_flagged_line(results, str(result["group"].values[enough][most])),
        are_models=True,
        note=" ".join(notes),
        link=("See all models", address("drift", by="model")),
        picture={
            "medians": [float(f"{value:.4g}") for value in np.sort(medians)],
            "typical": float(np.median(medians)),
        },
    )


def _flagged_line(results: Results, model: str) -> tuple[Line, ...]:
    """Say how many layers of a model are flagged, which may be why it is far; nothing for none."""
    flagged = results.degeneration["verdict"].values.any(axis=1)
    number = int(flagged[results.degeneration["layer_model"].values.astype(str) == model].sum())
    return (Line(f"It has {counted(number, 'flagged layer')}", "warn"),) if number else ()


def _short(value: float) -> str:
    return f"{value:#.2g}".removesuffix(".")


def _mostly_beyond_chance(result: xr.Dataset, model: int) -> bool:
    """Return whether most of a model's drifts are larger than chance explains; True where no noise was computed."""
    if "verdict" not in result:
        return True
    codes = np.delete(result["verdict"].values[model].astype(str), model)
    codes = codes[~np.isin(codes, ["", TOO_FEW])]
    return not len(codes) or bool(np.isin(codes, [DIFFERENT, BY_FILTERS]).mean() > 0.5)


def _are(number: int) -> str:
    return f"is {number:,}" if number == 1 else f"are {number:,}"
