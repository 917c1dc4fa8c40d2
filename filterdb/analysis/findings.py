"""Turn the result of a check into findings, one sentence each, for the terminal, SARIF files and JUnit files."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from filterdb.analysis.rules import FILE_RULES, UNREAD_RULES, as_rules, fewest_directions
from filterdb.analysis.shapes import are_stored, weights_of
from filterdb.analysis.untrained import tests_of
from filterdb.numerics.directions import AS_1X1, BOX_BLUR
from filterdb.numerics.percentiles import FEWEST_PEERS
from filterdb.schema import KERNEL, WEIGHTS, Kernel, kernel_text, parse_shape
from filterdb.wording import counted

if TYPE_CHECKING:
    import xarray as xr

    from filterdb.columns import Columns

    Result = xr.Dataset | Columns
    """What `check` returns, or `check_files`."""

ERROR, WARNING, IGNORED = "error", "warning", "ignored"

PASSED, FAILED, INCOMPLETE, NOTHING_CHECKED, UNREADABLE = (
    "passed", "failed", "incomplete", "nothing-checked", "unreadable",
)  # fmt: skip
"""The status of a checked file. A file passes only if every layer was checked."""

NOT_CHECKED = (*FILE_RULES, *UNREAD_RULES)
"""Rules for what was not checked."""

REMEDIES = {
    "dead": "Remove the layer, or train it: its output is only its bias.",
    "sparse": "Compare each output channel with its own largest weight before you prune: beside one large channel, "
    "healthy ones look small.",
    "collapsed": "Its filters are nearly multiples of one another: a layer of lower rank may suffice; look for "
    "vanishing gradients or too strong a weight decay.",
    "random": "Usually such a layer has hardly moved from its initialisation, which also happens in accurate networks. "
    "If it should be trained, check that its checkpoint was loaded and that it gets gradients.",
    "untrained": "Check that the checkpoint was loaded before the export. If these layers are random on purpose, take "
    "untrained out of `fail`, or ignore the file (FILE:*).",
    "nonfinite": "Go back to a checkpoint from before the divergence; in a float16 model look for overflow in "
    "the export.",
    "duplicate": "Store a repeated layer only once and share it, or find out why the export copied it; single "
    "filters that repeat cannot be removed without rewiring.",
    "outlier": "Look at the largest channel: a diverging or barely used one, or a scale that the export folded into "
    "the weight. One scale for the whole layer quantises its other channels badly; use one per channel.",
    "dead-channels": "Remove these output channels (each adds only its bias) and the matching inputs of the "
    "following layers, or find out why they died: too strong a weight decay, units that never fire.",
    "unread": "The layer was not checked. Do what the message says, or ignore the layer (FILE:LAYER).",
    "ambiguous": "Runtimes differ in which of the two they read. Remove one of them, or use the file from before a "
    "tool added the other.",
    "unreadable": "Do what the message says, or leave the file out.",
    "nothing-checked": "Leave the file out, ignore it (FILE:*), or take nothing-checked out of `fail`.",
}
"""What to do about each verdict."""


UNREAD_REMEDIES = {
    "unreadable": "Fetch the file again if it is damaged; a weight that takes long to compute can be read with a "
    "larger --model-seconds.",
    "memory": "Raise the memory limit (--model-memory).",
    "many": "The model exceeds the limit on filters, weights or kernel shapes; ignore the layer (FILE:LAYER).",
    "missing": "The file lacks the weight. Fetch the complete file, with its external data.",
    "operator": "Export it as an ordinary convolution, or ignore the layer (FILE:LAYER).",
    "unsupported": "Export its weight as a plain constant, such as an initializer.",
    "underflow": "Its weights are too small for float32: scale them up.",
    "dtype": "Convert its weight to float32.",
}
"""What to do about a layer that could not be read, by the ledger's code; export it again only where that helps."""


def collapsed_remedies(kernel: Kernel = KERNEL) -> dict[str, str]:
    """Return what to do about a collapsed layer of a kernel shape, by its direction; for others see REMEDIES."""
    weights = kernel[0] * kernel[1]
    share, number = ("a ninth", "nine") if weights == WEIGHTS else (f"1/{weights}", str(weights))
    return {
        AS_1X1: "The centre weights do most of the work, usually because the feature map is smaller than the kernel: "
        f"try a 1×1 convolution, which has {share} of the weights, or larger inputs.",
        BOX_BLUR: f"The {number} weights of a filter are much alike: try average pooling and a 1×1 convolution "
        "instead, and check whether the layer's input is upsampled or nearly constant over the window.",
    }


COLLAPSED_REMEDIES = collapsed_remedies()
"""The remedies for layers of 3×3 filters."""

RULES_OF_ENTROPY = ("collapsed", "random")
"""Rules whose message states the percentile of the layer's entropy."""

MEANINGS = {
    "dead": "Every weight of the layer is zero.",
    "sparse": "Most filters of the layer have only weights far below its largest.",
    "collapsed": "The filters of the layer are combinations of only a few patterns, or nearly equal.",
    "random": "The filters of the layer cannot be distinguished from noise, which is usual only before training.",
    "untrained": "The model has hardly moved from its initialisation: its layers cannot be distinguished from "
    "isotropic noise.",
    "nonfinite": "The layer has weights that are NaN or infinite.",
    "duplicate": "The layer, or many of its filters, are stored more than once.",
    "outlier": "One weight or output channel of the layer is far larger than the rest.",
    "dead-channels": "Some output channels of the layer are all zero.",
    "unread": "The weight of a convolution could not be read; the check is incomplete.",
    "ambiguous": "A tensor has its data twice, raw and typed; the check is incomplete.",
    "unreadable": "The file could not be read as a model.",
    "nothing-checked": "The model has no convolution that could be checked.",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Hold a verdict on a layer, or on a file if `layer` is empty. Only findings of level `error` fail the check."""

    file: str
    layer: str
    rule: str
    level: str
    message: str
    numbers: dict[str, float] = field(default_factory=dict)
    direction: str = ""
    """The direction of a collapsed layer."""
    kernel: Kernel = (0, 0)
    """The shape of the layer's filters; (0, 0) for a file, and a layer that could not be read."""
    unread_code: str = ""
    """The ledger's code of a layer that could not be read."""

    @property
    def remedy(self) -> str:
        """Return what to do about it."""
        if self.rule == "unread" and self.unread_code in UNREAD_REMEDIES:
            return f"The layer was not checked. {UNREAD_REMEDIES[self.unread_code]}"
        if not self.direction:
            return REMEDIES[self.rule]
        return collapsed_remedies(self.kernel).get(self.direction, REMEDIES[self.rule])


def findings(result: Result) -> list[Finding]:
    """Return the findings of a `check` result: what could not be read, then files with nothing to check, then others.

    Within each of these, findings are in the order of files, a model's before its layers'. A dead layer has no other
    verdict.
    """
    order = {str(name): i for i, name in enumerate(result["file"].values)}

    def sort_key(finding: Finding) -> tuple[int, int]:
        kind = 1 if finding.rule == "nothing-checked" else 0 if finding.rule in NOT_CHECKED else 2
        return kind, order[finding.file]

    return sorted([*_file_findings(result), *layer_findings(result)], key=sort_key)


def _file_findings(result: Result) -> list[Finding]:
    """Return a finding for each file that could not be read, has no layer to check, or is untrained."""
    failing = set(json.loads(result.attrs["rules"])["fail"])
    listed = []
    columns = (result[name].values for name in ("file", "reason", "skipped", "ignored_file", "untrained"))
    with_layers = set(result["layer_file"].values)
    for file, reason, skipped, ignored, untrained in zip(*columns, strict=True):
        name = str(file)
        if reason:
            rule, message = "unreadable", str(reason).removeprefix(f"{name}: ")
        elif name not in with_layers:
            rule, message = "nothing-checked", _without_layers(json.loads(skipped), result.attrs["kernel"])
        elif untrained:
            rule, message = "untrained", _like_noise(result.isel(layer=result["layer_file"].values == file))
        else:
            continue
        listed.append(Finding(name, "", rule, _level(rule, bool(ignored), failing), message))
    return listed


def _without_layers(skipped: dict[str, int], kernel: str) -> str:
    """Return a sentence about the convolutions of a file without any of a kernel shape, or any that can be checked."""
    if not skipped:
        return "the model has no convolution"
    kinds = ", ".join(f"{count:,} {code}" for code, count in sorted(skipped.items()))
    what = "a weight that can be checked" if kernel == "all" else f"a {kernel.replace('x', '×')} weight"
    number = sum(skipped.values())
    if number == 1:
        return f"its only convolution does not have {what} ({kinds})"
    return f"none of its {number:,} convolutions has {what} ({kinds})"


def _like_noise(layers: Result) -> str:
    """Return a sentence about an untrained model, given its layers."""
    rules = as_rules(json.loads(layers.attrs["rules"]))
    columns = ("filters", "p_value", "channel_p_value", "in_channels", "out_channels")
    measures = {name: layers[name].values for name in columns}
    p, tested, is_large = tests_of({**measures, "weights": weights_of(layers["kernel"].values)}, rules)
    rejected, pointwise = int((p[tested] < rules.random_p).sum()), int((tested & ~is_large).sum())
    sizes = f"{counted(int(is_large.sum()), 'layer')} of at least {rules.smallest} filters"
    if pointwise:
        sizes += f" and {counted(pointwise, '1×1 layer')}"
    if not rejected:
        return f"none of its {sizes} can be distinguished from isotropic noise"
    if pointwise:
        return (
            f"its {sizes} cannot be distinguished from isotropic noise, except {rejected:,} that may differ by chance"
        )
    number = len(p[tested]) - rejected
    return f"{number:,} of its {sizes} cannot be distinguished from isotropic noise; the others may differ by chance"


def layer_findings(result: Result) -> list[Finding]:
    """Return a finding for each rule that a layer breaks, in the order of layers."""
    rules = json.loads(result.attrs["rules"])
    failing = set(rules["fail"])
    names = [str(name) for name in result["rule"].values]
    hits = result["verdict"].values
    listed = []
    for i in hits.any(axis=1).nonzero()[0]:
        layer = result.isel(layer=int(i))
        verdicts = [rule for rule, hit in zip(names, hits[i], strict=True) if hit]
        file, name = str(layer["layer_file"].item()), str(layer["layer_name"].item())
        for rule in ["dead"] if "dead" in verdicts else verdicts:
            level = _level(rule, bool(layer["ignored"].item()), failing)
            direction = str(layer["direction"].item()) if rule == "collapsed" else ""
            message, numbers = _message(rule, layer, rules)
            message, numbers = _with_percentile(rule, layer, message, numbers)
            code = str(layer["unread_code"].item())
            listed.append(Finding(file, name, rule, level, message, numbers, direction, kernel_of(layer), code))
    return listed


def kernel_of(layer: Result) -> Kernel:
    """Return the shape of a layer's filters; (0, 0) if the layer could not be read."""
    name = str(layer["kernel"].item())
    return parse_shape(name) if name else (0, 0)


def _level(rule: str, ignored: bool, failing: set[str]) -> str:
    return IGNORED if ignored else ERROR if rule in failing else WARNING


def _message(rule: str, layer: Result, rules: dict[str, Any]) -> tuple[str, dict[str, float]]:
    """Return the sentence about a layer that breaks a rule, and the numbers in it."""
    filters, sparsity, entropy = (layer[name].item() for name in ("filters", "sparsity", "variance_entropy"))
    repeated, noun = layer["duplicate_filters"].item(), _noun(kernel_of(layer))
    if rule == "dead":
        return f"all {filters:,} {noun} are zero", {"filters": filters}
    if rule == "sparse":
        what = f"{sparsity:.1%} of {filters:,} {noun} have all weights below 1 % of the layer's largest"
        return f"{what} (at most {rules['sparse']:.0%} expected)", {"filters": filters, "sparsity": sparsity}
    if rule == "collapsed":
        spread, (rows, columns) = layer["relative_spread"].item(), kernel_of(layer)
        bound = fewest_directions(rules["collapsed"], rows * columns)
        if spread < rules["constant"] and 10**entropy >= bound:
            what = f"its {filters:,} {noun} are nearly equal: they differ by {spread:.1%} of their mean"
            return f"{what} (at least {rules['constant']:.0%} expected)", {
                "filters": filters,
                "relative_spread": spread,
            }
        what = f"its {filters:,} {noun} use {10**entropy:.2f} of {rows * columns} directions"
        what = f"{what} (at least {bound:.3g} expected){_resemblance(layer)}"
        return what, {"filters": filters, "variance_entropy": entropy}
    if rule == "random":
        p = layer["p_value"].item()
        what = f"its {filters:,} {noun} cannot be distinguished from isotropic noise (p = {p:.2g})"
        return what, {"filters": filters, "variance_entropy": entropy, "p_value": p}
    if rule == "nonfinite":
        return str(layer["nonfinite"].item()), {"filters": filters}
    if rule in UNREAD_RULES:
        return str(layer["unread_reason"].item()), {}
    if rule == "outlier":
        ratio = layer["outlier_ratio"].item()
        what = f"its largest weight is {ratio:,.4g} times the upper quartile of its channels' largest weights"
        return f"{what} (less than {rules['outlier']:g} expected)", {"filters": filters, "outlier_ratio": ratio}
    if rule == "dead-channels":
        zero, channels = layer["zero_channels"].item(), layer["out_channels"].item()
        what = f"{zero:,} of {channels:,} output channels are all zero"
        return what, {"zero_channels": zero, "out_channels": channels}
    twin = str(layer["duplicate_of"].item())
    if twin:
        return f"its {filters:,} {noun} duplicate those of {twin}", {"filters": filters}
    parts = f"{filters:,} {noun}"
    if kernel_of(layer) == (1, 1):
        parts = counted(layer["out_channels"].item(), "output channel")
    what = f"{repeated:,} of {parts} repeat an earlier one in the layer"
    return f"{what} (at most {rules['duplicate']:.0%} expected)", {"filters": filters, "duplicate_filters": repeated}


def _noun(kernel: Kernel) -> str:
    """Return what the sentences call the filters of a shape."""
    return {KERNEL: "filters", (1, 1): "weights"}.get(kernel, f"{kernel_text(kernel)} filters")


def _with_percentile(rule: str, layer: Result, message: str, numbers: dict[str, float]) -> tuple[str, dict[str, float]]:
    """Add the percentile of the layer's entropy to a finding about it, if there are enough layers to compare with."""
    percentile, peers = layer["percentile"].item(), layer["percentile_peers"].item()
    if rule not in RULES_OF_ENTROPY or peers < FEWEST_PEERS or math.isnan(percentile):
        return message, numbers
    place = f"{_place(percentile)} {counted(peers, 'layer')} of this shape and depth"
    return f"{message}; {place}", {**numbers, "percentile": percentile, "percentile_peers": peers}


def _place(percentile: float) -> str:
    """Return "3rd percentile of"; at the ends "entropy below all" and "entropy above all"."""
    if percentile in {0, 100}:
        return f"entropy {'above' if percentile else 'below'} all"
    number = min(max(round(percentile), 1), 99)
    suffix = "th" if number in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix} percentile of"


def _resemblance(layer: Result) -> str:
    """Return the end of the sentence about a collapsed layer; empty without a direction."""
    direction, share = str(layer["direction"].item()), layer["direction_share"].item()
    if not direction:
        return ""
    if direction == AS_1X1:
        return f"; it {direction} ({share:.0%} of its energy is in the centre weight)"
    return f"; it resembles {direction} ({share:.0%} of its energy)"


def statuses(result: Result, listed: list[Finding]) -> list[str]:
    """Return the status of each file, given all findings.

    A file with a layer that could not be read is incomplete, even if the rules ignore that layer.
    """
    failed = {finding.file for finding in listed if finding.level == ERROR}
    checked = set(result["layer_file"].values)
    return [
        UNREADABLE if reason
        else INCOMPLETE if unread
        else NOTHING_CHECKED if name not in checked
        else FAILED if name in failed
        else PASSED
        for name, reason, unread in zip(*(result[n].values for n in ("file", "reason", "unread")), strict=True)
    ]  # fmt: skip


def summary(result: Result) -> dict[str, Any]:
    """Return whether the check passes (`ok`), the number of findings of each level, and what could be pruned."""
    listed = findings(result)
    levels = [finding.level for finding in listed]
    return {
        "ok": ERROR not in levels,
        "status": _overall(statuses(result, listed), listed),
        "unread": int(result["unread"].values.sum()),
        "errors": levels.count(ERROR),
        "warnings": levels.count(WARNING),
        "ignored": levels.count(IGNORED),
        "prunable": _prunable(result),
    }


def _overall(file_statuses: list[str], listed: list[Finding]) -> str:
    """Return the status of the whole check, which does not pass if any file was not checked completely."""
    if INCOMPLETE in file_statuses:
        return INCOMPLETE
    if file_statuses and set(file_statuses) == {NOTHING_CHECKED}:
        return NOTHING_CHECKED
    return FAILED if UNREADABLE in file_statuses or any(finding.level == ERROR for finding in listed) else PASSED


def _prunable(result: Result) -> dict[str, Any]:
    """Count filters that are small relative to their channel's peak, and those small only relative to the layer's.

    A weight that several layers share is counted only for the first of them. Layers of 1×1 kernels, and of those whose
    filters are too large to be stored, do not count.
    """
    stored = result.isel(layer=are_stored(weights_of(result["kernel"].values)))
    own = stored.isel(layer=stored["shared_with"].values == "")
    pruned = own.isel(layer=own["prunable_filters"].values > 0)
    columns = ("layer_file", "layer_name", "prunable_filters", "prunable_parameters", "zero_channels")
    layers = [
        {
            "file": str(file),
            "layer": str(layer),
            "filters": int(filters),
            "parameters": int(parameters),
            "channels": int(channels),
        }
        for file, layer, filters, parameters, channels in zip(*(pruned[name].values for name in columns), strict=True)
    ]
    total, parameters = int(stored["parameters"].values.sum()), int(pruned["prunable_parameters"].values.sum())
    return {
        "filters": int(pruned["prunable_filters"].values.sum()),
        "parameters": parameters,
        "of_parameters": total,
        "share": parameters / total if total else math.nan,
        "channels": int(own["zero_channels"].values.sum()),
        "small_relative_to_peak": int(own["small_filters"].values.sum()),
        "small_channels": int(own["small_channels"].values.sum()),
        "layers": sorted(layers, key=lambda row: -int(row["parameters"])),
    }
