"""Join each family of related models to a tree: the most similar pairs, rooted where the family began.

Weights alone determine a tree without a root. Its root is the family's initialisation; without one it is the model that
is most similar to all others, as the parent of several copies is, and nothing says which way the branches grew.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def toward_root(similarity: Floats, related: Bools, initial: Bools, families: Iterable[set[int]]) -> Ints:
    """Return the next model on the way to the root of its family's tree, (models,); −1 for roots and single models.

    `similarity` and `related` (models, models), `initial` (models,); −1 stands for an unknown similarity. The tree has
    the largest sum of similarities of all trees of related pairs (Prim 1957).
    """
    closeness = np.where(related, np.nan_to_num(similarity, nan=-1.0), -np.inf)
    parents = np.full(len(related), -1)
    for family in families:
        members = np.array(sorted(family))
        near = closeness[np.ix_(members, members)]
        root = _root(near, initial[members])
        joined, best, link = np.zeros(len(members), bool), near[root].copy(), np.full(len(members), root)
        joined[root] = True
        while not joined.all():
            model = int(np.where(joined, -np.inf, best).argmax())
            parents[members[model]] = members[link[model]]
            joined[model] = True
            nearer = near[model] > best
            best[nearer], link[nearer] = near[model][nearer], model
    return parents


def _root(near: Floats, initial: Bools) -> int:
    """Return the root of a family: the initialisation least similar to the others, else the model most similar to them.

    After an epoch or two, layers can still be as isotropic as noise, but the network is nearer its descendants.
    """
    total = np.where(np.isfinite(near), near, 0.0).sum(axis=1)
    return int(np.where(initial, total, np.inf).argmin()) if initial.any() else int(total.argmax())
