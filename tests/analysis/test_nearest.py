"""Copies come next to their source, retrained models nearer than other families; numbers against plain NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import xarray as xr
from onnx import helper, numpy_helper
from scipy.stats import entropy

import filterdb as fdb
from filterdb.commands.nearest import to_answer as answer_of
from filterdb.engine.loops import LoopReduction
from filterdb.errors import InputError, UsageError
from filterdb.numerics.depth import DECILES
from filterdb.reduce import model_summary as query
from tests.filters import moved, network, trained
from tests.models import chain, conv, model, save, tensor, weights
from tests.numerics import oracles

pytestmark = pytest.mark.slow

FAMILIES = ("alder", "birch", "cedar")


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    """Three families, three trainings of each; and a model of few filters."""
    folder = tmp_path_factory.mktemp("families")
    rows = ["path,name,family,task,training_dataset"]
    for i, family in enumerate(FAMILIES):
        for seed in range(3):
            network(folder / f"{family}{seed}.onnx", seed, i)
            rows.append(f"{family}{seed}.onnx,{family}{seed},{family},task {seed},set {i}")
    chain(folder / "small.onnx", trained(16, 16, 0, 0))
    (folder / "list.csv").write_text("\n".join([*rows, "small.onnx,small,alder,,"]))
    return fdb.ingest(folder / "db", catalog=folder / "list.csv").database


@pytest.mark.parametrize("family", range(3))
def test_a_retrained_model_is_nearer_than_other_families(families: fdb.Database, tmp_path: Path, family: int) -> None:
    found = fdb.nearest(families, network(tmp_path / "again.onnx", 7, family), n=20)
    ranked = found.isel(model=~found["few"].values)
    assert list(ranked["family"].values[:3]) == [FAMILIES[family]] * 3
    assert (np.diff(ranked["excess"].values) >= 0).all()
    np.testing.assert_array_equal(found["excess"], found["drift"] - found["floor"])
    own, other = ranked["drift"].values[2], ranked["drift"].values[3]
    assert other > 2 * own
    assert list(ranked["rank"].values) == list(range(1, 10))
    # Of few filters, and very like them: after all others, without a rank.
    assert (found["model"].values[-1], int(found["rank"][-1]), bool(found["few"][-1])) == ("small", 0, True)


def test_compiled_loops_give_the_same(families: fdb.Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = network(tmp_path / "again.onnx", 7, 0)
    small = fdb.nearest(families, file)
    monkeypatch.setattr(query, "UNCOMPILED", 0)
    monkeypatch.delattr(LoopReduction, "add_uncompiled")
    assert fdb.nearest(families, file).identical(small)


def quantised(source: Path, target: Path) -> Path:
    """Weights of rank 4 as int8, one scale for each output channel, behind DequantizeLinear."""
    proto = onnx.load(source)
    kept, nodes = [], []
    for one in proto.graph.initializer:
        if len(one.dims) != 4:
            kept.append(one)
            continue
        values = numpy_helper.to_array(one)
        scale = np.abs(values).max(axis=(1, 2, 3)) / 127
        scale[scale == 0] = 1
        whole = np.clip(np.round(values / scale[:, None, None, None]), -127, 127).astype(np.int8)
        kept += [numpy_helper.from_array(whole, f"{one.name}_q"), numpy_helper.from_array(scale, f"{one.name}_s")]
        nodes.append(helper.make_node("DequantizeLinear", [f"{one.name}_q", f"{one.name}_s"], [one.name], axis=0))
    graph = proto.graph
    names = {one.name for one in graph.initializer if len(one.dims) == 4}
    inputs = [one for one in graph.input if one.name not in names]
    del graph.initializer[:], graph.input[:]
    graph.initializer.extend(kept)
    graph.input.extend(inputs)
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    onnx.save(proto, target)
    return target


@pytest.mark.parametrize(
    ("pattern", "name"), [("*nsfw*/**/*.onnx", "thin-resnet50"), ("mtcnn*/**/onet.onnx", "mtcnn-onet")]
)
def test_copies_of_a_real_model_come_next_to_it(
    real_db: fdb.Database, demo_catalog: Path, tmp_path: Path, pattern: str, name: str
) -> None:
    source = next(demo_catalog.parent.glob(pattern))
    same = fdb.nearest(real_db, source)
    assert (same["model"].values[0], bool(same["same_content"][0])) == (name, True)
    assert float(same["drift"][0]) < 1e-9 < float(same["drift"][1])
    assert not same["same_content"].values[1:].any()
    for copy in (moved(source, tmp_path / "tuned.onnx", share=0.05), quantised(source, tmp_path / "int8.onnx")):
        found = fdb.nearest(real_db, copy)
        assert (found["model"].values[0], found["verdict"].values[0]) == (name, "related")
        assert set(found["verdict"].values[1:]) == {"different_by_filters", "few"}
        assert float(found["drift"][1]) > 5 * float(found["drift"][0])
        assert not bool(found["same_content"][0])
        deciles = found["decile_drift"].fillna(np.inf).values[:, found["query_count"].values > 0]
        assert (deciles.argmin(axis=0) == 0).all()


def test_the_numbers_are_those_of_the_method(families: fdb.Database, tmp_path: Path) -> None:
    """Basis and range from the store; everything else from the filters, by NumPy and SciPy."""
    path = network(tmp_path / "q.onnx", 9, 1)
    found = fdb.nearest(families, path, n=20)
    basis = fdb.open(families.url).basis
    assert basis is not None and basis.id == found.attrs["basis"]
    mean, components, ratio = basis.arrays()
    low, high = found.attrs["range"]
    edges = np.linspace(low, high, 71)

    def counted(filters: np.ndarray) -> np.ndarray:
        coefficients = (oracles.scaled(filters) - mean) @ components.T
        return np.array([np.histogram(coefficients[:, k], bins=edges)[0] for k in range(9)])

    query = np.concatenate([numpy_helper.to_array(one).reshape(-1, 9) for one in onnx.load(path).graph.initializer])
    owner = np.repeat(families.layers["model"].values.astype(str), families.layers["row_size"].values)
    filters = families.dataset.filters.values
    depth = np.repeat(families.layers["conv_depth_norm"].values, families.layers["row_size"].values)
    mine = counted(query)
    whole = counted(filters) + mine
    prior = (whole + 0.5) / (len(filters) + len(query) + 35)

    def shrunk(counts: np.ndarray) -> np.ndarray:
        return np.asarray((counts + 35 * prior) / (counts[0].sum() + 35))

    def drift(a: np.ndarray, b: np.ndarray) -> list[float]:
        p, q = shrunk(a), shrunk(b)
        return [entropy(p[k], q[k]) + entropy(q[k], p[k]) for k in range(9)]

    cut = pd.cut(depth, np.arange(0, 1.1, 0.1).tolist(), include_lowest=True, labels=False)
    sizes = [512, 2_048, 3_072]
    ends = np.cumsum(sizes)
    for i, name in enumerate(found["model"].values):
        rows = owner == name
        parts = drift(mine, counted(filters[rows]))
        np.testing.assert_allclose(found["per_component"][:, i], parts, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found["drift"][i], ratio @ parts, rtol=1e-9, atol=1e-12)
        assert int(found["count"][i]) == rows.sum()
        if name == "small":
            continue
        for layer, decile in enumerate((0, 4, 9)):
            own = query[ends[layer] - sizes[layer] : ends[layer]]
            expected = ratio @ drift(counted(own), counted(filters[rows & (cut == decile)]))
            np.testing.assert_allclose(found["decile_drift"][i, decile], expected, rtol=1e-9, atol=1e-12)
        assert np.isnan(found["decile_drift"].values[i, [1, 2, 3, 5, 6, 7, 8]]).all()
    assert found["query_count"].values[[0, 4, 9]].tolist() == sizes
    assert list(found["decile"].values) == DECILES


def test_closer_than_noise_is_visible(tmp_path: Path) -> None:
    """Two samples of one distribution cannot be told apart, one of a slightly moved one can."""

    def sample(seed: int, shift: float) -> np.ndarray:
        rng = np.random.default_rng(seed)
        mixed = rng.standard_normal((8_192, 9)) * np.linspace(3, 0.3, 9) + shift
        return mixed.reshape(64, 128, 3, 3).astype(np.float32)

    twins = [chain(tmp_path / f"twin{i}.onnx", sample(i, 0.0)) for i in range(4)]
    moved = chain(tmp_path / "moved.onnx", sample(9, 0.3))
    db = fdb.ingest(tmp_path / "db", [*twins, moved]).database
    found = fdb.nearest(db, chain(tmp_path / "q.onnx", sample(11, 0.0)))
    noise = dict(zip(found["model"].values, found["closer_than_noise"].values, strict=True))
    assert not noise[moved.as_posix()]
    assert found["model"].values[-1] == moved.as_posix()
    assert sum(noise[twin.as_posix()] for twin in twins) >= 3  # each with 95 %
    ratio = found["drift"].values / found["floor"].values
    assert (ratio[:4] > 0.5).all() and (ratio[:4] < 1.6).all() and ratio[4] > 5


def test_excess_ranks_models_of_different_sizes(tmp_path: Path) -> None:
    """A small sample of the file's own distribution drifts more than a large one of another, by chance alone."""

    def sample(seed: int, count: int, shift: float) -> np.ndarray:
        mixed = np.random.default_rng(seed).standard_normal((count, 9)) * np.linspace(3, 0.3, 9) + shift
        return mixed.reshape(-1, 16, 3, 3).astype(np.float32)

    chain(tmp_path / "small.onnx", sample(1, 1_024, 0.0))
    chain(tmp_path / "large.onnx", sample(2, 65_536, 0.12))
    db = fdb.ingest(tmp_path / "db", [tmp_path / "small.onnx", tmp_path / "large.onnx"]).database
    found = fdb.nearest(db, chain(tmp_path / "q.onnx", sample(3, 65_536, 0.0)))
    assert [Path(model).stem for model in found["model"].values] == ["small", "large"]
    assert found["drift"].values[0] > found["drift"].values[1]
    assert found["verdict"].values.tolist() == ["indistinguishable", "different_by_filters"]


def test_related_is_shown_apart_from_noise(families: fdb.Database, tmp_path: Path) -> None:
    source = network(tmp_path / "m.onnx", 0, 0)
    found = fdb.nearest(families, moved(source, tmp_path / "tuned.onnx", share=0.05))
    assert (found["model"].values[0], found["verdict"].values[0]) == ("alder0", "related")
    assert found["drift"].values[0] < found["related_below"].values[0] < found["floor"].values[0]
    assert "related" not in found["verdict"].values[1:]


def test_views_choose_among_whom(families: fdb.Database, tmp_path: Path) -> None:
    path = network(tmp_path / "q.onnx", 7, 0)
    whole = fdb.nearest(families, path, n=20)
    view = fdb.nearest(families.select(training_dataset="set 1"), path, n=2)
    assert view["model"].values.tolist() == [m for m in whole["model"].values if str(m).startswith("birch")][:2]
    same = whole.sel(model=view["model"].values)
    np.testing.assert_allclose(view["drift"], same["drift"], rtol=1e-9)  # basis and π are the snapshot's
    assert "training_dataset = set 1" in view.attrs["selection"]
    by_path = fdb.nearest(families.url, str(path), n=1)
    assert by_path["model"].values[0] == whole["model"].values[0]


def test_answers_and_refusals(families: fdb.Database, tmp_path: Path) -> None:
    answer = answer_of(fdb.nearest(families, network(tmp_path / "q.onnx", 7, 0), n=20))
    assert answer["rows"][0].keys() >= {"model", "drift", "floor", "task", "training_dataset"}
    assert [row["rank"] for row in answer["rows"]] == [*range(1, 10), None]
    assert [part["decile"] for part in answer["rows"][0]["deciles"]] == ["[0.0, 0.1]", "(0.4, 0.5]", "(0.9, 1.0]"]
    with pytest.raises(UsageError, match="n: expected at least 1"):
        fdb.nearest(families, tmp_path / "q.onnx", n=0)
    with pytest.raises(InputError, match=r"absent\.onnx: expected a file, found none"):
        fdb.nearest(families, tmp_path / "absent.onnx")
    chain(tmp_path / "five.onnx", weights(4, 4, kernel=(5, 5)))
    with pytest.raises(InputError, match=r"expected at least one 3×3 convolution .* 1 convolution of other kinds"):
        fdb.nearest(families, tmp_path / "five.onnx")
    short = tensor("w", trained(16, 16, 1))
    short.raw_data = short.raw_data[:-4]
    save(tmp_path / "short.onnx", model([conv("x", "w", "y", "broken")], [short]))
    with pytest.raises(InputError, match="found 1 without usable weights, such as 'broken': the weight's tensor has"):
        fdb.nearest(families, tmp_path / "short.onnx")


def test_layers_that_are_left_out_are_told(families: fdb.Database, tmp_path: Path) -> None:
    broken = trained(16, 16, 1)
    broken[0, 0, 0, 0] = np.nan
    result = fdb.nearest(families, chain(tmp_path / "m.onnx", broken, trained(40, 40, 2)))
    (left_out,) = answer_of(result)["query"]["left_out"].items()
    assert left_out == ("conv0", "1 of 2304 weights are NaN or infinite in float32")


def test_a_layer_of_many_blocks(families: fdb.Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many filters of the file are in memory at a time, the counts are the same."""
    path = network(tmp_path / "m.onnx", 7, 1)
    whole = fdb.nearest(families, path)
    monkeypatch.setattr(query, "ROWS", 113)
    assert whole.attrs["query_filters"] > 20 * 113
    xr.testing.assert_identical(fdb.nearest(families, path), whole)
