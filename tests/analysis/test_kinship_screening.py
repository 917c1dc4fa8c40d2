"""The search for relatives in single precision: it misses none, however many layers are added up."""

from __future__ import annotations

import numpy as np
import pytest

from filterdb.analysis import kinship
from filterdb.analysis.aligned_layers import AlignedLayers
from filterdb.numerics.sketch import BUCKETS

pytestmark = pytest.mark.slow

MODELS = 5


def aligned(places: int, kind: str) -> AlignedLayers:
    """Layers of so many places, all models at each: alike, opposed at every other place, or independent."""
    rng = np.random.default_rng(places)
    sizes = np.repeat(rng.choice([64, 4_096, 2**20], places), MODELS)
    sketch = rng.standard_normal((places, MODELS, BUCKETS))
    if kind != "independent":
        sketch = sketch[:, :1] + 0.03 * sketch
    if kind == "opposed":
        sketch[::2, 1::2] *= -1
    sketch /= np.linalg.norm(sketch, axis=2, keepdims=True)
    layers = places * MODELS
    return AlignedLayers(
        sketch=sketch.reshape(layers, BUCKETS).astype(np.float32),
        isotropic=np.zeros(layers),
        content=np.arange(layers),
        is_full=np.ones(layers, bool),
        p_value=np.zeros(layers),
        owner=np.tile(np.arange(MODELS), places),
        sizes=sizes,
        aligned=list(np.arange(layers).reshape(places, MODELS)),
    )


@pytest.mark.parametrize("places", [2, 1_000])
@pytest.mark.parametrize("kind", ["alike", "opposed", "independent"])
def test_every_pair_at_its_own_threshold(kind: str, places: int) -> None:
    """A pair is found where its exact similarity reaches the threshold, and not where it is twice the slack below."""
    layers = aligned(places, kind)
    stacks, block = kinship._stacks(layers), (slice(0, MODELS), slice(0, MODELS))
    sketch = layers.sketch.astype(np.float64).reshape(places, MODELS, BUCKETS)
    weights = np.array([kinship._weight(layers, place) for place in layers.aligned])
    cosine = np.einsum("p,pib,pjb->ij", weights, sketch, sketch)
    total = weights.sum()
    for i in range(MODELS):
        for j in range(i + 1):
            at = cosine[i, j] / np.sqrt(total)
            above = (cosine[i, j] + 2 * kinship._SLACK * total) / np.sqrt(total)
            assert kinship._candidates(layers, stacks, block, at)[i, j]
            assert not kinship._candidates(layers, stacks, block, above)[i, j]
