"""Both keyings, by layer and by group, take the same path: checkpoint, resume, store, remove the checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import dask
import numpy as np
import pytest

import filterdb as fdb
from filterdb.engine.checkpoint import MIN_PARTITIONS_TO_CHECKPOINT
from filterdb.engine.graph import FAN_IN
from filterdb.engine.moments import MomentsReduction
from filterdb.engine.partition import GROUP_OF_LAYER, partitions
from filterdb.engine.parts import join, reduce_partition
from filterdb.engine.run import Wanted, compute
from filterdb.errors import StoreError
from filterdb.reduce.joint_densities import JointBins, JointHistograms, digest_of_groups
from filterdb.reduce.reductions import Axes
from filterdb.store import local, summary
from filterdb.store.segment import Segment
from tests.models import chain, weights

CHUNKS = 98
AXES = Axes.of(np.zeros(9), np.eye(9), scaled=True)
GROUPS = np.array([0, 1, -1, 0, 1])
"""Layers 0 and 3 are one group, 1 and 4 the other, 2 is in none: chunks 28 to 31 are not read by group."""


@dataclass(frozen=True)
class Case:
    """A pass over the one segment of a database, and the chunks that it reads."""

    db: fdb.Database
    wanted: Wanted
    chunks: set[int]

    @property
    def segment(self) -> Segment:
        return self.db.segments[0]

    def run(self) -> dict[summary.Key, summary.Arrays]:
        return {key: arrays for _, key, arrays in compute(self.db, [self.wanted])}

    def checkpoints(self) -> list[str]:
        return sorted(self.db.files.list(summary.parts_name(self.segment.id)))

    def stored(self) -> dict[summary.Key, bytes]:
        """Bytes of the complete summaries."""
        keys = [key for reduction in self.wanted.reductions for key in reduction.keys]
        present = self.db.files.list(f"summaries/{self.segment.id}")
        names = {key: summary.name_of(self.segment.id, key) for key in keys}
        return {key: self.db.files.read(name) for key, name in names.items() if name in present}

    def forget(self) -> None:
        """Remove every summary, from the store and from memory."""
        self.db.files.remove(self.db.files.list("summaries"))
        self.db.kept.clear()


@pytest.fixture(params=["by layer", "by group"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    """Five layers of 260, 13, 53, 400 and 254 filters in 98 chunks of 10."""
    shapes = [(20, 13), (13, 1), (53, 1), (20, 20), (127, 2)]
    for i, shape in enumerate(shapes):
        chain(tmp_path / f"{i}.onnx", weights(*shape, seed=i))
    db = fdb.ingest(tmp_path / "db", [tmp_path / f"{i}.onnx" for i in range(5)], chunk_rows=10).database
    assert db.segments[0].chunks == CHUNKS
    wanted, chunks = Wanted(0, (MomentsReduction(),)), set(range(CHUNKS))
    if request.param == "by group":
        pairs = ((0, 1), (4, 2))
        reduction = JointHistograms(JointBins(AXES, -1.0, 1.0, 8), pairs, digest_of_groups(GROUPS))
        wanted = Wanted(0, (reduction,), GROUPS)
        chunks -= {28, 29, 30, 31}  # rows 273 to 325 are those of layer 2 alone
    made = Case(db, wanted, chunks)
    made.forget()
    with dask.config.set(scheduler="synchronous"):
        yield made


class Reading:
    """Records the chunks that are read; with `allowed`, the process is stopped after so many."""

    def __init__(self, patch: pytest.MonkeyPatch, allowed: int | None = None) -> None:
        self.chunks: list[int] = []
        real: Callable[[Segment, int], np.ndarray] = Segment.read_columns

        def read(segment: Segment, chunk: int) -> np.ndarray:
            if len(self.chunks) == allowed:
                raise KeyboardInterrupt
            self.chunks.append(chunk)
            return real(segment, chunk)

        patch.setattr(Segment, "read_columns", read)


def stop_halfway(case: Case) -> list[str]:
    """Stop a pass after 70 chunks; return the names of its checkpoints."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        Reading(patch, 70)
        case.run()
    assert not case.stored()
    return case.checkpoints()


def covered(names: list[str]) -> set[int]:
    """Chunks between the first and the last of each checkpoint."""
    ranges = [Path(name).stem.split("-") for name in names]
    return {chunk for first, last in ranges for chunk in range(int(first), int(last) + 1)}


def test_a_stopped_pass_resumes(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """What checkpoints cover is not read again; the summaries are those of an undisturbed pass, byte for byte."""
    reading = Reading(monkeypatch)
    undisturbed = case.run()
    assert sorted(reading.chunks) == sorted(case.chunks)
    expected = case.stored()
    assert len(expected) == len(case.wanted.reductions[0].keys)
    assert case.checkpoints() == []
    case.forget()
    names = stop_halfway(case)
    assert len(names) >= 3 * len(expected)
    reading.chunks.clear()
    resumed = case.run()
    assert sorted(reading.chunks) == sorted(case.chunks - covered(names))
    assert case.checkpoints() == []
    assert case.stored() == expected
    for key, arrays in undisturbed.items():
        assert all(np.array_equal(arrays[name], resumed[key][name]) for name in arrays)


def test_a_damaged_checkpoint_is_computed_again(
    case: Case, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    case.run()
    expected = case.stored()
    case.forget()
    names = stop_halfway(case)
    damaged = Path(case.db.files.url(names[0]))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    reading = Reading(monkeypatch)
    case.run()
    again = covered(names[:1])
    assert sorted(reading.chunks) == sorted(case.chunks - (covered(names) - again))
    assert "got damage" in caplog.text
    assert case.stored() == expected
    assert case.checkpoints() == []


def test_checkpoints_that_cannot_be_removed_leave_the_summary_stored(
    case: Case, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise StoreError("not today")

    with monkeypatch.context() as patch:
        patch.setattr(summary, "remove_parts", refuse)
        case.run()
    assert "were not removed: not today" in caplog.text
    assert "kept in memory only" not in caplog.text
    assert len(case.stored()) == len(case.wanted.reductions[0].keys)
    case.db.kept.clear()
    reading = Reading(monkeypatch)
    case.run()
    assert not reading.chunks


def test_results_of_a_read_only_store_stay_in_memory(
    case: Case, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path, data: bytes) -> None:
        raise PermissionError(13, "read-only", str(path))

    reading = Reading(monkeypatch)
    monkeypatch.setattr(local, "create", refuse)
    case.run()
    assert "kept in memory only" in caplog.text
    assert not case.stored()
    reading.chunks.clear()
    case.run()
    assert not reading.chunks


def test_the_merge_tree_does_not_change_the_result(case: Case) -> None:
    """Any grouping of neighbours gives the same counts, and moments to the last digits."""
    tables = dict(case.db.tables[0])
    if case.wanted.group_of_layer is not None:
        tables[GROUP_OF_LAYER] = case.wanted.group_of_layer
    reductions = case.wanted.reductions
    every = partitions(case.segment, tables)
    assert len(every) == len(case.chunks) >= MIN_PARTITIONS_TO_CHECKPOINT > FAN_IN
    parts = [reduce_partition(partition, reductions) for partition in every]
    (flat,) = join(parts, reductions)
    (nested,) = join([join(parts[:3], reductions), parts[3], join(parts[4:], reductions)], reductions)
    assert flat.index.tolist() == nested.index.tolist() == ([0, 1] if reductions[0].by_group else [0, 1, 2, 3, 4])
    for name, expected in flat.arrays.items():
        np.testing.assert_allclose(nested.arrays[name], expected, rtol=1e-12, atol=1e-15)
