"""The page of databases on which some analysis refuses to answer: it is whole, and names what is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dask
import numpy as np
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import save_file

import filterdb as fdb
from filterdb.analysis.grouping import raw_view
from filterdb.page.model_pages import ModelPages
from filterdb.page.page_files import all_files
from filterdb.page.report import compute_sections, page_html
from filterdb.page.results import gather
from tests.models import chain, conv, model, save, tensor, weights


def norm_in_some_weights(folder: Path) -> None:
    """In each file, the norm of one layer stands apart; that of another is in its weights, as PyTorch names them."""
    for number in range(2):
        scale = [tensor(name, np.ones(16, np.float32)) for name in "sbmv"]
        nodes = [
            conv("x", "w", "h", "apart"),
            helper.make_node("BatchNormalization", ["h", "s", "b", "m", "v"], ["n"]),
            helper.make_node("Conv", ["n", "onnx::Conv_1", "c"], ["y"], name="inside"),
        ]
        layers = [tensor("w", weights(16, 16, number)), tensor("onnx::Conv_1", weights(17, 16, 2 + number))]
        bias = tensor("c", np.ones(17, np.float32))
        save(folder / f"{number}.onnx", model(nodes, [*layers, bias, *scale]))


def no_depth(folder: Path) -> None:
    """A file of weights without a graph and without an order."""
    for number in range(2):
        layers = {f"{name}.weight": weights(16, 16, number + i) for i, name in enumerate(("left", "right"))}
        save_file(layers, folder / f"{number}.safetensors")


def no_scale(folder: Path) -> None:
    """Integers without a scale."""
    graph = helper.make_graph(
        [helper.make_node("ConvInteger", ["x", "q"], ["y"], name="integers")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, None)],
        [helper.make_tensor_value_info("y", TensorProto.INT32, None)],
        [tensor("q", np.random.default_rng(0).integers(0, 255, (16, 16, 3, 3)).astype(np.uint8))],
    )
    save(folder / "0.onnx", helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]))


def only_zeros(folder: Path) -> None:
    chain(folder / "0.onnx", np.zeros((16, 16, 3, 3), np.float32), np.zeros((8, 16, 3, 3), np.float32))


def not_finite(folder: Path) -> None:
    layer = weights(16, 16)
    layer[0, 0, 1, 1], layer[3, 2] = np.inf, np.nan
    chain(folder / "0.onnx", layer, weights(16, 16, 1))


def a_single_filter(folder: Path) -> None:
    chain(folder / "0.onnx", weights(1, 1))


ODD = (norm_in_some_weights, no_depth, no_scale, only_zeros, not_finite, a_single_filter)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["sound", pytest.param("paper", marks=pytest.mark.soak)])
@pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__)
def test_an_odd_database_has_a_page(tmp_path: Path, make: Callable[[Path], None], mode: str) -> None:
    make(tmp_path)
    with dask.config.set(scheduler="threads"):
        db = fdb.ingest(tmp_path / "db", str(tmp_path)).database
        results = gather(db, mode)  # type: ignore[arg-type]
        sections = compute_sections(results)
        page = page_html(results, sections, []).decode()
        files = all_files(sections) | ModelPages(results).files({})
    assert all(reason.strip() for section in sections for _, reason in section.missing())
    assert {"tables/models.csv", "model.html"} <= set(files)
    left_out = "batch normalisation is not where most filters have it" in page
    assert left_out is (make is norm_in_some_weights)


def test_raw_filters_of_the_larger_kind_are_compared(tmp_path: Path) -> None:
    """Layers without a batch normalisation stay."""
    norm_in_some_weights(tmp_path)
    chain(tmp_path / "plain.onnx", weights(4, 4))
    with dask.config.set(scheduler="threads"):
        db = fdb.ingest(tmp_path / "db", str(tmp_path)).database
    kinds = dict(zip(db.layers["layer_name"].values.tolist(), db.layers["batch_norm"].values.tolist(), strict=True))
    view, number = raw_view(db)
    assert (kinds["apart"], kinds["inside"], number) == ("unfolded", "folded", 2)
    assert view.layers["layer_name"].values.tolist() == ["inside", "inside", "conv0"]
    apart, none_left_out = raw_view(db.select(layer_name=["apart", "conv0"]))
    assert (apart.counts["layers"], none_left_out) == (3, 0)
