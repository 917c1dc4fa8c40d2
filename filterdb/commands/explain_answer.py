"""The answer of `filterdb explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from filterdb.commands.answer import Answer, basis_of, noise_of_pair, of_result

if TYPE_CHECKING:
    import xarray as xr


def explain(result: xr.Dataset) -> Answer:
    """Every contribution to the drift of two groups; models and layers by falling share."""
    sides = result["side"].values.tolist()
    shares, drift = result["component_share"].values, float(result["drift"])
    components = [
        {"component": i, "weight": weight, "share": share, "drift": share * drift}
        for i, (weight, share) in enumerate(zip(result["weights"].values, shares, strict=True))
    ]
    models = [
        {"model": model, "share": share, "without": without, "filters": filters}
        for model, share, without, filters in zip(
            *(result[name].values.tolist() for name in ("model", "model_share", "without_model", "model_count")),
            strict=True,
        )
    ]
    of_layers = ("layer", "layer_model", "layer_side", "layer_count", "layer_share", "without_layer")
    names = ("layer", "model", "group", "filters", "share", "without")
    layers = [
        dict(zip(names, row, strict=True))
        for row in zip(*(result[name].values.tolist() for name in of_layers), strict=True)
    ]
    matched = [
        {"label": label, "drift": inside, "filters": filters, "few": few}
        for label, inside, filters, few in zip(
            *(
                result[name].values.tolist()
                for name in ("matched_label", "matched_drift", "matched_count", "matched_few")
            ),
            strict=True,
        )
    ]
    return {
        **of_result(result),
        "by": result.attrs["by"],
        "mode": result.attrs["mode"],
        "metric": "kl",
        "scaled": bool(result.attrs["scaled"]),
        "groups": sides,
        "counts": result["count"].values,
        "drift": drift,
        **basis_of(result),
        **noise_of_pair(result),
        "summary": result.attrs["summary"],
        "by_component": components,
        "bin_edges": result["bin_edges"].values,
        "by_bin": result["bin_share"].values,
        "rest": result["rest_share"].item(),
        "by_model": sorted(models, key=lambda row: -abs(row["share"])),
        "by_layer": sorted(layers, key=lambda row: -abs(row["share"])),
        "match": result.attrs["match"],
        "matched": matched,
        "within_matched": result["within_matched"].item(),
        "left": result["left"].item(),
    }
