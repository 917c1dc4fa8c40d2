"""The row that a measurement adds for a layer, and the names of its columns."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Row:
    """A layer at a step of a training. The numbers are NaN if a weight is NaN or infinite."""

    step: int
    """Steps of the optimiser before the measurement."""

    epoch: int | None
    """The epoch, from 0, if the training loop said so."""

    layer: str
    """Name of the layer, as in `fdb.summarise` of the network."""

    kernel: str
    """Shape of its filters, such as "3x3"."""

    filters: int
    """Number of filters n."""

    sparsity: float
    """S: share of filters whose |w| are all below peak/100."""

    variance_entropy: float
    """H of the layer's own raw PCA (P1 eq. 7)."""

    p_value: float
    """Probability that isotropic noise departs from sphericity at least as far."""

    centre_energy: float
    """Share of Σf² in the centre weight."""

    norm: float
    """√Σw²."""

    moved: float
    """Distance between the layer's direction w/‖w‖ now and at the measurement before, of up to 1,024 of its filters.

    NaN at the first measurement.
    """

    alarm: str = ""
    """The kind of an alarm that this measurement raised, or empty."""


COLUMNS = tuple(field.name for field in fields(Row))
NUMBERS = ("sparsity", "variance_entropy", "p_value", "centre_energy", "norm", "moved")
"""The columns that are drawn over steps."""
