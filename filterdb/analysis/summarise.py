"""Summarise a model, in a file or in memory: statistics of each of its layers, without a database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from filterdb.analysis.check import check_files
from filterdb.analysis.returning import returns_result
from filterdb.columns import Column, Columns
from filterdb.errors import InputError, UsageError
from filterdb.extras import require
from filterdb.models.sandbox import Limits
from filterdb.models.sources import as_source
from filterdb.wording import counted

if TYPE_CHECKING:
    import xarray as xr

    from filterdb.models.sources import Order, Source
    from filterdb.schema import AnyKernel

MEASURES = (
    *("filters", "sparsity", "variance_entropy", "threshold", "ratio", "p_value", "relative_spread", "peak", "norm"),
    *("centre_energy", "duplicate_filters", "zero_channels", "parameters", "percentile"),
)
"""Measures of a layer that are in the result."""

LABELS = (
    "kernel",
    "conv_depth",
    "conv_depth_norm",
    "in_channels",
    "out_channels",
    "groups",
    "depthwise",
    "unread_reason",
)
"""Coordinates of a layer that are in the result."""


@returns_result
def summarise(
    model: Source,
    *,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    key: str = "",
    order: Order | None = None,
    kernel: AnyKernel | None = None,
) -> xr.Dataset:
    """Return statistics of each convolution of a model, without a database and without a verdict.

    Parameters
    ----------
    model : str, path, onnx.ModelProto, torch.nn.Module or keras.Model
        A model file, its URL, or a model in memory. Transposed convolutions are skipped, as in files. The weights of a
        torch module are read on the CPU.
    limits : Limits
        Time and memory for reading the file. Default: `Limits()`.
    key : str
        Which network to read of a checkpoint with several, such as "ema".
    order : str, path or list of str, optional
        The names of the weights in the order of execution, or a JSON file with them, for a file without a graph.
    kernel : tuple of int or str, optional
        Only the layers with filters of this shape, such as "5x5". Default: layers of every shape.

    Returns
    -------
    xarray.Dataset
        With dim layer, the names of the model's layers in their order:

        - filters, duplicate_filters, zero_channels, parameters (layer), int64: as in `check`.
        - sparsity, variance_entropy, threshold, ratio, p_value, relative_spread, peak (layer), float64: as in `check`;
          NaN where the layer could not be read, its scale is unknown, or its weights are not finite.
        - norm (layer), float64: √Σw².
        - centre_energy (layer), float64: the share of Σf² in the centre weight, (rows // 2, columns // 2).
        - percentile (layer), float64: the place of H among layers of other models, as in `check`.
        - Coordinates along layer: kernel (such as "5x5"), conv_depth, conv_depth_norm, in_channels, out_channels,
          groups, depthwise, unread_reason (why a layer has no numbers, or empty).

        For 1×1 kernels, and for those of more than 256 weights, only filters, parameters, sparsity, peak and norm are
        known. The attribute `model` names the model; `skipped` is JSON of ledger code → number of convolutions
        that were not measured.

    Raises
    ------
    InputError
        If the file is missing or is not a readable model.
    UsageError
        If `model` has another type, or stands for several files.

    Examples
    --------
    >>> result = fdb.summarise("models/fresh.onnx")
    >>> result["variance_entropy"].values.round(2)
    array([0.95, 0.95, 0.95])
    >>> result["kernel"].values.tolist()
    ['3x3', '3x3', '3x3']
    """
    require("xarray")
    source = as_source(model, "model").content
    checked = check_files(
        source, db=None, reference=None, rules=None, limits=limits, key=key, order=order, kernel=kernel
    )
    names = checked["file"].values
    if len(names) != 1:
        raise UsageError(f"model: expected one model, got {counted(len(names), 'file')}; summarise each alone")
    reason = str(checked["reason"].values[0])
    if reason:
        raise InputError(reason)
    attrs = {name: checked.attrs[name] for name in ("kernel", "filters", "layers", "formula", "filterdb_version")}
    attrs |= {"model": str(names[0]), "skipped": str(checked["skipped"].values[0])}
    labels = {"layer": Column(("layer",), checked["layer_name"].values), **{name: checked[name] for name in LABELS}}
    variables = {name: checked[name] for name in MEASURES}
    return Columns({**variables, **labels}, frozenset(labels), attrs).to_dataset()
