"""Random histories of a database, with deaths at any write, against a model of what it should hold."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import dask
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

import filterdb as fdb
from filterdb import errors
from filterdb.ingestion import compact
from filterdb.store import collected, lease, pack, pages
from filterdb.store.files import Files
from tests.faults.crash import CrashError, Interruptions, mutations, watched
from tests.models import chain, weights

MODELS = "abcde"
TASKS = ["detection", "segmentation", "unknown"]
ROWS = {name: (3 + i) * 4 for i, name in enumerate(MODELS)}
KERNELS = st.sampled_from(["3x3", "all"])


def layers_of(name: str) -> list[np.ndarray]:
    """The weights of a model: 3×3, then 5×5."""
    number = MODELS.index(name)
    return [weights(4, 3 + number, seed=number), weights(2, 3 + number, seed=10 + number, kernel=(5, 5))]


State = dict[str, str]
"""Model → task."""


class History(RuleBasedStateMachine):
    """`now`: what the newest snapshot should hold; `past`: what every snapshot that was seen held."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="filterdb-history-"))
        self.url = self.folder / "db"
        self.now: State = {}
        self.past: dict[int, State] = {}
        self.tags: dict[str, int] = {}
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(lease, "LEASE_SECONDS", -1.0)  # who has died owns nothing from then on
        self.patch.setattr(pages, "FAN", 3)  # pages of pages, and compactions, within a few commits
        self.patch.setattr(collected, "MOST_INLINE", 3)
        self.patch.setattr(compact, "COMPACT_FROM", 4)
        _forget_pages()
        self.patch.setattr(os, "fsync", lambda _: None)  # processes die here, machines do not
        self.config = dask.config.set(scheduler="synchronous")
        for name in MODELS:
            chain(self.folder / f"{name}.onnx", *layers_of(name))

    def teardown(self) -> None:
        self.config.__exit__(None, None, None)
        self.patch.undo()
        _forget_pages()
        shutil.rmtree(self.folder)

    def attempt(self, act: Callable[[], object], after: State, crash: tuple[int, bool] | None) -> None:
        """Do something that leads to `after`; with a crash, to what was before or to `after`, nothing between."""
        try:
            if crash is None:
                act()
            else:
                with mutations(crash[0], after=crash[1]) as counted:
                    act()
                note(f"ended after {counted.count} writes")
            self.now = after
        except CrashError as death:
            note(f"died at {death}")
            if self.seen() == after:
                self.now = after
        self.check()

    def seen(self) -> State:
        """What the newest snapshot holds."""
        try:
            db = fdb.open(self.url)
        except errors.StoreMissingError:
            return {}
        return dict(zip(db.models["model"].values, db.models["task"].values, strict=True))

    def check(self) -> None:
        assert self.seen() == self.now
        if not self.now and not self.past:
            return
        db = fdb.open(self.url)
        self.past.setdefault(db.snapshot, dict(self.now))
        self.past = {number: state for number, state in self.past.items() if not db.state.has_expired(number)}
        self.tags = {name: number for name, number in self.tags.items() if name in db.state.tags}
        assert db.counts["filters"] == sum(ROWS[name] for name in self.now)
        assert set(db.kernels) <= {(3, 3), (5, 5)}
        for place, kernel in enumerate(db.kernels):
            bank = db.bank(kernel)
            filters, sizes = bank.dataset.filters.values, bank.layers["row_size"].values
            bounds = np.concatenate([[0], np.cumsum(sizes)])
            for layer, model in enumerate(bank.layers["model_index"].values):
                expected = layers_of(str(bank.models["model"].values[model]))[place].reshape(-1, bank.weights)
                np.testing.assert_array_equal(filters[bounds[layer] : bounds[layer + 1]], expected)

    crashes = st.none() | st.tuples(st.integers(0, 110), st.booleans())

    @rule(
        names=st.sets(st.sampled_from(MODELS), min_size=1), task=st.sampled_from(TASKS), kernels=KERNELS, crash=crashes
    )
    def ingest(self, names: set[str], task: str, kernels: str, crash: tuple[int, bool] | None) -> None:
        rows = "".join(f"{name}.onnx,{name},{task}\n" for name in sorted(names))
        (self.folder / "list.csv").write_text(f"path,name,task\n{rows}")

        def act() -> None:
            fdb.ingest(self.url, catalog=self.folder / "list.csv", chunk_rows=7, kernels=kernels)

        if any(self.now.get(name, task) != task for name in names):
            with pytest.raises(errors.InputError, match="relabel"):
                act()
            self.check()
            return
        self.attempt(act, {**self.now, **dict.fromkeys(names, task)}, crash)

    @precondition(lambda self: self.now)
    @rule(data=st.data(), crash=crashes)
    def remove(self, data: st.DataObject, crash: tuple[int, bool] | None) -> None:
        name = data.draw(st.sampled_from(sorted(self.now)))
        after = {other: task for other, task in self.now.items() if other != name}
        self.attempt(lambda: fdb.remove(fdb.open(self.url), [name]), after, crash)

    @precondition(lambda self: self.now)
    @rule(data=st.data(), task=st.sampled_from(TASKS), crash=crashes)
    def relabel(self, data: st.DataObject, task: str, crash: tuple[int, bool] | None) -> None:
        name = data.draw(st.sampled_from(sorted(self.now)))
        (self.folder / "labels.csv").write_text(f"name,task\n{name},{task}\n")
        act = lambda: fdb.relabel(fdb.open(self.url), self.folder / "labels.csv")  # noqa: E731
        self.attempt(act, {**self.now, name: task}, crash)

    @precondition(lambda self: self.past)
    @rule(crash=crashes)
    def compact(self, crash: tuple[int, bool] | None) -> None:
        self.attempt(lambda: fdb.compact(fdb.open(self.url), chunk_rows=50), dict(self.now), crash)

    @precondition(lambda self: sum(ROWS[name] for name in self.now) > 9)
    @rule(crash=crashes)
    def reduce(self, crash: tuple[int, bool] | None) -> None:
        self.attempt(lambda: fdb.drift(fdb.open(self.url), by="model"), dict(self.now), crash)

    @precondition(lambda self: self.past)
    @rule(crash=crashes)
    def gc(self, crash: tuple[int, bool] | None) -> None:
        self.attempt(lambda: fdb.gc(self.url, delete=True, grace=-1), dict(self.now), crash)
        if crash is None:
            assert fdb.gc(self.url, grace=-1) == []

    @precondition(lambda self: self.past)
    @rule(keep=st.integers(1, 6), tags=st.booleans(), crash=crashes)
    def expire(self, keep: int, tags: bool, crash: tuple[int, bool] | None) -> None:
        self.attempt(lambda: fdb.expire(self.url, keep=keep, tags=tags), dict(self.now), crash)

    @precondition(lambda self: self.now)
    @rule(data=st.data(), crash=crashes)
    def purge(self, data: st.DataObject, crash: tuple[int, bool] | None) -> None:
        """Afterwards, or after a second attempt where the first died, no object names the model."""
        name = data.draw(st.sampled_from(sorted(self.now)))
        after = {other: task for other, task in self.now.items() if other != name}
        self.attempt(lambda: fdb.purge(self.url, name), after, crash)
        if crash is not None:
            with contextlib.suppress(errors.UsageError):  # it had come to its end
                fdb.purge(self.url, name)
            self.now = after
            self.check()
        files = Files.at(self.url)
        packs = [n for folder in ("segments", "tables") for n in files.list(folder) if n.endswith(".safetensors")]
        assert not [n for n in packs if name in pack.decode(files.read(n), n)[0]["model"].tolist()]
        assert fdb.verify(self.url, deep=True).problems == []

    @precondition(lambda self: self.past)
    @rule(names=st.sets(st.sampled_from(MODELS), min_size=1), at=st.integers(0, 110), compact=st.booleans())
    def gc_by_another_clock(self, names: set[str], at: int, compact: bool) -> None:
        """A collector that takes every writer for dead, at any moment of an ingest or a compaction.

        Either the writer commits, and all that it lists is there, or it says to run again.
        """
        tasks = {name: self.now.get(name, "unknown") for name in names}
        rows = "".join(f"{name}.onnx,{name},{task}\n" for name, task in sorted(tasks.items()))
        (self.folder / "list.csv").write_text(f"path,name,task\n{rows}")
        after = dict(self.now) if compact else {**self.now, **tasks}

        def act() -> None:
            if compact:
                fdb.compact(fdb.open(self.url), chunk_rows=50)
            else:
                fdb.ingest(self.url, catalog=self.folder / "list.csv", chunk_rows=7)

        try:
            with watched(Interruptions(at, lambda: fdb.gc(self.url, delete=True, grace=-1))):
                act()
            self.now = after
        except errors.InterruptedRunError as error:
            note(f"gave up: {error}")
        self.check()
        assert fdb.verify(fdb.open(self.url), deep=True).problems == []

    @precondition(lambda self: self.past)
    @rule(name=st.sampled_from(["one", "two"]))
    def tag(self, name: str) -> None:
        db = fdb.open(self.url)
        if name in self.tags:
            assert db.state.tags[name] == self.tags[name]
            return
        self.tags[name] = db.snapshot
        fdb.tag(db, name)
        self.check()

    @precondition(lambda self: self.past)
    @rule(data=st.data())
    def look_back(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.past)))
        db = fdb.open(self.url, number)
        found = dict(zip(db.models["model"].values, db.models["task"].values, strict=True))
        assert found == self.past[number]
        assert db.dataset.filters.values.shape == (sum(ROWS[name] for name in found), 9)

    @precondition(lambda self: self.past)
    @rule()
    def verify(self) -> None:
        assert fdb.verify(fdb.open(self.url), deep=True).problems == []


def _forget_pages() -> None:
    pages.paginate.cache_clear()
    pages.forget()


def run(examples: int, *, same: bool) -> None:
    run_state_machine_as_test(
        History,
        settings=settings(
            max_examples=examples,
            derandomize=same,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a step takes too long to shrink by the hundred
        ),
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_histories() -> None:
    run(3, same=True)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_many_histories() -> None:
    """Thousands of steps."""
    run(60, same=False)
