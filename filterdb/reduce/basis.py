"""Fit and commit the basis of coefficients and histograms, with its weights and range.

In `sound` mode the first reduce fits a basis on the whole snapshot and commits it. Later snapshots inherit it, and its
range ±(√K + ‖mean‖₂) holds for all later filters, because the norm of a max-scaled filter of K weights is at most √K.
In `paper` mode the basis is fitted on the whole snapshot each time, and the range is from the smallest to the largest
coefficient. Raw filters use the range of `paper` in both modes.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from filterdb.engine.moments import SCALED, MomentsReduction, raw_state, state
from filterdb.engine.run import summaries, view_parts
from filterdb.errors import (
    ConflictError,
    DamageError,
    InputError,
    StaleBasisWarning,
    StoreError,
    StoreMissingError,
    UsageError,
)
from filterdb.numerics import eigen
from filterdb.numerics.modes import MODES as MODES  # noqa: PLC0414 - also imported from here
from filterdb.numerics.modes import Mode, as_mode
from filterdb.numerics.moments import Moments, pool_parts
from filterdb.reduce.reductions import Axes, ExtremesReduction, HistogramsReduction
from filterdb.schema import AnyKernel, Kernel
from filterdb.store import snapshot as snapshots
from filterdb.store.database import AnyDatabase, Database, as_database
from filterdb.store.shapes import no_filters
from filterdb.store.snapshot import Snapshot, StoredBasis
from filterdb.store.summary import Arrays, Key

STALE_ANGLE = np.radians(1.2)
"""Smallest angle between the current covariance and that of the basis at which D is usually off by more than 2 %.

Measured on 90 samples of the demo's layers, with the basis fitted on a part of each: the angle separates changes of
more than 2 % from smaller ones in 92 of 100 cases (docs/explanation/method.md).
"""

ALIGNED = 9
"""Leading components of which `moved` gives the alignment: all for 3×3 filters. Every result carries these numbers."""

_PACKAGE = str(Path(__file__).parent.parent)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Projection:
    """Hold the axes, weights and range of a snapshot's histograms; `id` names a committed basis."""

    axes: Axes
    weights: npt.NDArray[np.float64]
    low: float
    high: float
    id: str | None
    fitted_on: int
    sign_rule: str

    @property
    def histograms(self) -> HistogramsReduction:
        """Return the reduction that computes the histograms."""
        return HistogramsReduction(self.axes, self.low, self.high)


def has_scale(db: Database, *, scaled: bool) -> npt.NDArray[np.bool_]:
    """Return which of the view's layers can be used, (layers,) bool: raw filters need a known scale."""
    known: npt.NDArray[np.bool_] = db.layer_columns["scale_known"].values
    return known | scaled


def layer_moments(db: Database, *, scaled: bool) -> Moments:
    """Return the moments of every layer of the whole snapshot; raw layers without a known scale have count 0."""
    (arrays,) = summaries(db, MomentsReduction(db.weights))
    return _usable_moments(arrays, has_scale(db.whole, scaled=False), scaled=scaled)


def _usable_moments(arrays: Arrays, known: npt.NDArray[np.bool_], *, scaled: bool) -> Moments:
    """Return the moments of layers; raw layers whose scale is not `known` (layers,) have count 0."""
    if scaled:
        return state(arrays, SCALED)
    raw = raw_state(arrays)
    count, mean, m2 = raw.count.copy(), raw.mean.copy(), raw.m2.copy()
    count[~known], mean[~known], m2[~known] = 0, 0.0, 0.0
    return Moments(count, mean, m2)


def whole_moments(db: Database, *, scaled: bool) -> Moments:
    """Return the moments of all filters of the snapshot."""
    place = "", Key("whole moments", 1, repr((db.layers_key, scaled)))
    kept = db.kept.get(place)
    if kept is None:
        whole = db.whole
        total = pooled_moments(whole, np.zeros(whole.all_layer_columns.sizes["layer"], np.int64), 1, scaled=scaled)
        kept = {"count": total.count, "mean": total.mean, "m2": total.m2}
        db.kept[place] = kept
    total = Moments(**kept).pick(0)
    if not total.count:
        raise no_filters(db)
    return total


def pooled_moments(db: Database, group: npt.NDArray[np.int64], groups: int, *, scaled: bool) -> Moments:
    """Return the moments (groups,) of the view's layers by `group` (layers,), from those of some layers at a time."""
    known = has_scale(db, scaled=False)

    def parts() -> Iterator[Moments]:
        for _, part, arrays in view_parts(db, MomentsReduction(db.weights)):
            yield _usable_moments(arrays, known[part], scaled=scaled)

    counts, means = [], []
    for part in parts():
        counts.append(part.count)
        means.append(part.mean.copy())
    return pool_parts(np.concatenate(counts), np.concatenate(means), (part.m2 for part in parts()), group, groups)


def projection(db: Database, mode: str | Mode, *, scaled: bool = True) -> tuple[Database, Projection]:
    """Return the projection of a mode, and the database at the snapshot that has it; fit and commit one if needed."""
    mode = as_mode(mode)
    if mode.keeps_basis and scaled:
        db = with_basis(db)
        if db.basis is None:
            raise DamageError(f"{db.url}: expected a basis at snapshot {db.snapshot}, got none; run `filterdb refit`")
        mean, components, weights = db.basis.arrays()
        low, high = db.basis.range
        axes = Axes.of(mean, components, scaled=True)
        return db, Projection(axes, weights, low, high, db.basis.id, db.basis.snapshot, "component")
    return db, _fitted(db, mode, scaled=scaled)


def _fitted(db: Database, mode: Mode, *, scaled: bool) -> Projection:
    """Fit a projection on the whole snapshot, with the range of its coefficients."""
    fit = eigen.decompose(whole_moments(db, scaled=scaled))
    (extremes,) = summaries(db, ExtremesReduction(Axes.of(fit.mean, fit.components, scaled=scaled)))
    used = has_scale(db.whole, scaled=scaled)
    smallest, largest = extremes["smallest"][used].min(axis=0), extremes["largest"][used].max(axis=0)
    # If both ends are equally far from zero, rounding must not decide: the component keeps the sign of `sound`.
    tie = eigen.SIGN_TIE * max(-smallest.min(), largest.max())
    flip = (-smallest - largest > tie) & (mode.sign_rule == "coefficient")
    # The coefficients of a mirrored component are mirrored bit for bit, so a second pass is not needed.
    smallest, largest = np.where(flip, -largest, smallest), np.where(flip, -smallest, largest)
    components = np.where(flip[:, None], -fit.components, fit.components)
    axes = Axes.of(fit.mean, components, scaled=scaled)
    low, high = float(smallest.min()), float(largest.max())
    return Projection(axes, fit.explained_variance_ratio, low, high, None, db.snapshot, mode.sign_rule)


def with_range_of(db: Database, projection: Projection) -> Projection:
    """Return the projection with the range from the smallest to the largest coefficient of the view's layers."""
    (extremes,) = summaries(db, ExtremesReduction(projection.axes))
    layers = slice(None) if db.chosen is None else db.chosen
    low, high = extremes["smallest"][layers].min(), extremes["largest"][layers].max()
    return replace(projection, low=float(low), high=float(high))


def layer_histograms(db: Database, projection: Projection) -> Arrays:
    """Return counts (layers, K, 70), underflow, overflow and on_edge (layers, K) of the whole snapshot, int64."""
    (arrays,) = summaries(db, projection.histograms)
    return arrays


def with_basis(db: Database) -> Database:
    """Return the database at a snapshot with a basis, which the first reduce fits and commits.

    If the snapshot is not the newest, or the store cannot be written, the basis stays in memory.
    """
    if db.state.basis_of(db.kernel) is not None:
        return db
    base = _after_fits(db)
    if base.basis_of(db.kernel) is not None:
        return db.at(base)
    basis = fit_basis(db)
    if not basis.is_usable:
        log.warning("basis not committed: the filters of snapshot %d have no variance to fit one on", db.snapshot)
        return _in_memory(db, basis)
    try:
        stored = snapshots.write_basis(db.files, basis)
        # Somebody may have committed a basis while this one was fitted, or does so between these two lines: the newest
        # number first, so that what comes after it is found by `_after_fits` or by the commit.
        newest = max(snapshots.numbers(db.files)[0])
        base = _after_fits(db)
        if base.basis_of(db.kernel) is not None:
            return db.at(base)
        if newest <= base.number:
            committed = snapshots.commit(db.files, base, lambda newest: _with_basis(newest, db, stored))
            if committed.basis_of(db.kernel) is not None and committed.has_content_of(db.state):
                return db.at(committed)
        return _in_memory(db, stored)
    except DamageError:
        raise
    except StoreError as error:
        log.warning("basis kept in memory only: %s", error)
        return _in_memory(db, basis)


def with_bases(db: Database) -> Database:
    """Return the database at a snapshot with a basis of every kernel shape, in one commit if several are missing.

    What `with_basis` does not commit, this does not either.
    """
    banks = [db.bank(kernel) for kernel in db.kernels]
    missing = [bank for bank in banks if db.state.basis_of(bank.kernel) is None and bank.counts["filters"]]
    newest = max(snapshots.numbers(db.files)[0])
    if len(missing) < 2 or newest != db.snapshot:
        return db
    fitted = {bank.kernel: fit_basis(bank) for bank in missing}
    usable = {kernel: basis for kernel, basis in fitted.items() if basis.is_usable}
    try:
        for basis in usable.values():
            snapshots.write_basis(db.files, basis)
        state = snapshots.commit(db.files, db.state, lambda head: _with_bases(head, db, usable))
    except DamageError:
        raise
    except StoreError as error:
        log.warning("bases kept in memory only: %s", error)
        return db
    return db.at(state) if state.has_content_of(db.state) else db


def _with_bases(head: Snapshot | None, db: Database, bases: Mapping[Kernel, StoredBasis]) -> Snapshot | None:
    """Return the snapshot that adds the bases that `head` does not have; None for none, or if it has other filters."""
    head = snapshots.existing(db.files, head)
    new = {kernel: basis for kernel, basis in bases.items() if head.basis_of(kernel) is None}
    if not new or not head.has_content_of(db.state):
        return None
    following = head.next("reduce")
    for kernel, basis in new.items():
        following = following.with_basis(kernel, basis.id)
    return following


def refit(db: AnyDatabase, *, kernel: AnyKernel | None = None) -> Database:
    """Fit a new basis on the newest snapshot and commit it.

    Earlier snapshots keep their basis and its summaries.

    Parameters
    ----------
    db : Database, str or path
        The database or a view of it.
    kernel : (int, int) or str, optional
        Shape of the filters, such as "5x5". Default: that of `db`, which is 3×3 for a path or URL.

    Returns
    -------
    Database
        The whole database at the new snapshot.

    Raises
    ------
    ConflictError
        If an ingest commits at the same time.
    InputError
        If the filters have no variance.
    """
    db = as_database(db, kernel=kernel)
    head = snapshots.existing(db.files, snapshots.latest(db.files))
    newest = Database(db.files, head, kept=db.kept).bank(db.kernel)
    fitted = fit_basis(newest)
    if not fitted.is_usable:
        raise InputError(f"{db.url}: expected filters whose variance a basis can be fitted on, got none; ingest more")
    basis = snapshots.write_basis(db.files, fitted)

    def build(current: Snapshot | None) -> Snapshot:
        if current is None or not current.has_content_of(head):
            raise ConflictError(f"{db.url}: expected to refit snapshot {head.number}, others added to it; run again")
        return current.next("refit").with_basis(db.kernel, basis.id)

    return newest.at(snapshots.commit(db.files, head, build))


def fit_basis(db: Database) -> StoredBasis:
    """Fit a basis on the whole snapshot, with the range ±(√K + ‖mean‖₂) for filters of K weights."""
    fit = eigen.decompose(whole_moments(db, scaled=True))
    # The norm of a max-scaled filter is at most √K; the factor keeps rounding from leaving a filter outside.
    bound = float(np.sqrt(len(fit.mean)) + np.linalg.norm(fit.mean)) * (1 + 1e-12)
    return snapshots.named(
        StoredBasis(
            mean=fit.mean.tolist(),
            components=fit.components.tolist(),
            explained_variance_ratio=fit.explained_variance_ratio.tolist(),
            range=[-bound, bound],
            snapshot=db.snapshot,
            filters=int(db.whole.counts["filters"]),
        )
    )


def moved(db: Database, basis: StoredBasis) -> dict[str, Any]:
    """Measure how far the snapshot's own PCA has moved from its basis.

    Returns `angle`, the largest principal angles in radians between the leading k-dimensional subspaces, k = 1 … K−1
    and at most `eigen.DIMENSIONS`; `alignment`, |V·V′ᵀ| of the leading ALIGNED components; `ratio_change`, the current
    explained-variance ratios minus those of the basis; and `covariance_angle`, the angle in radians between the current
    covariance and that of the basis.
    """
    now = eigen.decompose(whole_moments(db, scaled=True))
    mean, components, ratios = basis.arrays()
    then = eigen.Basis(mean, components, ratios, ratios, np.sqrt(ratios))
    return {
        "covariance_angle": eigen.covariance_angle(then, now),
        "angle": eigen.principal_angles(components, now.components).tolist(),
        "alignment": np.abs(components[:ALIGNED] @ now.components[:ALIGNED].T).tolist(),
        "ratio_change": (now.explained_variance_ratio - ratios).tolist(),
    }


def basis_attributes(db: Database, projection: Projection) -> dict[str, Any]:
    """Return the attributes of a result about its basis, and warn if the filters have moved too far from it.

    These are basis, basis_fitted_on and sign_rule; for a committed basis also basis_moved, JSON of `moved`, and, from
    STALE_ANGLE on, basis_warning, a sentence that is also raised as a StaleBasisWarning.
    """
    attributes: dict[str, Any] = {
        "basis": projection.id,
        "basis_fitted_on": projection.fitted_on,
        "sign_rule": projection.sign_rule,
    }
    if projection.id is None or db.basis is None:
        return attributes
    place = "", Key("moved", 1, repr((db.layers_key, projection.id)))
    kept = db.kept.get(place)
    if kept is None:
        kept = {"json": np.frombuffer(json.dumps(moved(db, db.basis)).encode(), np.uint8)}
        db.kept[place] = kept
    attributes["basis_moved"] = kept["json"].tobytes().decode()
    change = json.loads(attributes["basis_moved"])
    if change["covariance_angle"] >= STALE_ANGLE:
        angle, limit = np.degrees([change["covariance_angle"], STALE_ANGLE])
        text = (
            f"the basis of snapshot {projection.fitted_on} is stale: the filters have moved {angle:.1f}° from it, and "
            f"drift is usually off by over 2 % from {limit:.1f}° on; `filterdb refit` fits a new one"
        )
        attributes["basis_warning"] = text
        warnings.warn(text, StaleBasisWarning, skip_file_prefixes=(_PACKAGE,))
    return attributes


def _after_fits(db: Database) -> Snapshot:
    """Return the last of the snapshots after this one that only added bases, up to one that has a basis of the kernel.

    It is this snapshot if the next one is of another kind, lost or damaged: a basis fitted again on the same filters is
    the same.
    """
    state = db.state
    while state.basis_of(db.kernel) is None:
        try:
            following = snapshots.read(db.files, state.number + 1)
        except (UsageError, StoreMissingError, DamageError):
            break
        if following.action != "reduce" or not following.has_content_of(db.state):
            break
        state = following
    return state


def _with_basis(head: Snapshot | None, db: Database, basis: StoredBasis) -> Snapshot | None:
    """Return the snapshot that adds the basis to `head`; None if `head` has a basis or other filters by now."""
    head = snapshots.existing(db.files, head)
    if head.basis_of(db.kernel) is not None or not head.has_content_of(db.state):
        return None
    return head.next("reduce").with_basis(db.kernel, basis.id)


def _in_memory(db: Database, basis: StoredBasis) -> Database:
    """Return the same view with a basis that is not committed."""
    view = db.at(db.state)
    view.__dict__["basis"] = view.whole.__dict__["basis"] = basis
    return view
