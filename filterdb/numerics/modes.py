"""Declare the modes `sound` and `paper`: a class each, with all that a mode changes in a result.

Public functions take the name of a mode or a Mode. `as_mode` checks it once, and all code below works with the object.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, Protocol

import numpy as np

from filterdb.choices import ModeName as ModeName  # noqa: PLC0414 - also imported from here
from filterdb.errors import UsageError
from filterdb.numerics.histogram import PSEUDO_FILTERS, paper_probabilities, sound_probabilities


class SmallestLayers(Protocol):
    """Declare the part of `Rules` that depends on the mode."""

    @property
    def smallest(self) -> int: ...

    @property
    def smallest_paper(self) -> int: ...


class Mode(ABC):
    """Declare what a mode decides. A mode has no state: MODES has one instance of each class."""

    name: ClassVar[str]

    keeps_basis: ClassVar[bool]
    """Whether scaled filters are projected on the committed basis of the snapshot, not on one fitted anew."""

    sign_rule: ClassVar[Literal["component", "coefficient"]]
    """Whether the largest entry of a component or its largest coefficient decides the component's sign."""

    has_noise: ClassVar[bool]
    """Whether drift has floors, verdicts and intervals."""

    pseudo_filters: ClassVar[int]
    """Number α of filters that `probabilities` adds to each group."""

    has_range_of_view: ClassVar[bool] = False
    """Whether the range of the histograms is that of the view's coefficients, not one for the whole snapshot."""

    dead_layers_are_sparse: ClassVar[bool]
    """Whether the sparsity of an all-zero layer is 1, not 0."""

    tests_randomness: ClassVar[bool]
    """Whether a layer is random if a test cannot tell it from isotropic noise, not by its entropy alone."""

    @abstractmethod
    def probabilities(self, counts: np.ndarray, whole: np.ndarray, edges: np.ndarray) -> np.ndarray:
        """Return the probability of each bin.

        Parameters
        ----------
        counts : ndarray (…, K, 70) of int
            Filters in each bin.
        whole : ndarray (K, 70) of int64
            Filters of the whole snapshot in each bin.
        edges : ndarray (71,) of float64
            Edges of the bins.

        Returns
        -------
        ndarray (…, K, 70) of float64
        """

    def labels(self, key: str, column: np.ndarray) -> np.ndarray:
        """Return the labels (layers,) by which the column `key` is grouped."""
        return column

    @abstractmethod
    def smallest_random(self, rules: SmallestLayers) -> int:
        """Return the smallest number of filters of a layer that can be random."""


class Sound(Mode):
    """Give the best answer: one basis for all questions, shrunk probabilities, noise."""

    name = "sound"
    keeps_basis = True
    sign_rule = "component"
    has_noise = True
    pseudo_filters = PSEUDO_FILTERS
    dead_layers_are_sparse = True
    tests_randomness = True

    def probabilities(self, counts: np.ndarray, whole: np.ndarray, edges: np.ndarray) -> np.ndarray:
        return sound_probabilities(counts, whole)

    def smallest_random(self, rules: SmallestLayers) -> int:
        return rules.smallest


class Paper(Mode):
    """Compute as the code of the CVPR 2022 paper does."""

    name = "paper"
    keeps_basis = False
    sign_rule = "coefficient"
    has_noise = False
    pseudo_filters = 0
    dead_layers_are_sparse = False
    tests_randomness = False

    def probabilities(self, counts: np.ndarray, whole: np.ndarray, edges: np.ndarray) -> np.ndarray:
        return paper_probabilities(counts, edges)

    def labels(self, key: str, column: np.ndarray) -> np.ndarray:
        """Return the labels; every task that contains "Segmentation" is one task."""
        if key != "task":
            return column
        return np.array(["Segmentation" if "Segmentation" in str(label) else label for label in column], dtype=object)

    def smallest_random(self, rules: SmallestLayers) -> int:
        return rules.smallest_paper


class PaperOfCompared(Paper):
    """Compute as `Paper` does, with histograms over the range of the compared distributions (P2 A.1)."""

    has_range_of_view = True


SOUND, PAPER = Sound(), Paper()

PAPER_OF_COMPARED = PaperOfCompared()
"""The mode of P2: it has no name of its own, since only the range differs from that of `paper`."""

MODES: dict[str, Mode] = {mode.name: mode for mode in (SOUND, PAPER)}
"""Every mode by its name."""

AnyMode = ModeName | Mode
"""What public functions take as `mode`."""


def as_mode(mode: str | Mode) -> Mode:
    """Return the mode that has a name. Raises UsageError for an unknown one."""
    if isinstance(mode, Mode):
        return mode
    if mode not in MODES:
        raise UsageError(f"mode: expected one of {', '.join(MODES)}, got {mode!r}")
    return MODES[mode]
