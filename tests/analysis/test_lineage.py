"""Copies find their originals, strangers find nobody; directions come from labels and from initialisations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import filterdb as fdb
from filterdb.analysis import kinship as kin
from filterdb.analysis.kinship import kinship
from filterdb.commands.lineage import in_tree_order, to_answer, to_dot
from filterdb.engine import run
from filterdb.errors import UsageError
from tests.filters import moved, trained
from tests.models import chain

SHAPES = ((16, 32), (32, 64), (64, 48), (48, 48))


def made(path: Path, seed: int, family: int = 0) -> Path:
    """A network of four layers that look trained."""
    return chain(path, *(trained(out, into, 10 * seed + i, family) for i, (into, out) in enumerate(SHAPES)))


def initial(path: Path, seed: int) -> list[np.ndarray]:
    """The layers of a network as initialised, also written to a file."""
    rng = np.random.default_rng(seed)
    layers = [rng.normal(0, 0.05, (out, into, 3, 3)).astype(np.float32) for into, out in SHAPES]
    chain(path, *layers)
    return layers


def ingested(folder: Path, rows: list[str]) -> fdb.Database:
    """A database of the models of a catalog; each row begins with the name, the first row has the columns."""
    head, *models = rows
    lines = [f"path,{head}", *(f"{row.split(',')[0]}.onnx,{row}" for row in models)]
    (folder / "list.csv").write_text("\n".join(lines), "utf-8")
    return fdb.ingest(folder / "db", catalog=folder / "list.csv").database


def parents(db: fdb.Database, **options: str) -> dict[str, tuple[str, str]]:
    result = fdb.lineage(db, **options)
    columns = (result[name].values.tolist() for name in ("model", "parent", "evidence"))
    return {model: (parent, evidence) for model, parent, evidence in zip(*columns, strict=True)}


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine of two layers (n, 9) without their mean filters."""
    a, b = (a - a.mean(axis=0)).ravel(), (b - b.mean(axis=0)).ravel()
    return float(a @ b / np.sqrt(a @ a * (b @ b)))


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    """Eight strangers of one family, of which two have fine-tuned copies and one has a frozen one."""
    folder = tmp_path_factory.mktemp("backbones")
    rows = ["name,training_dataset,pretraining_dataset"]
    for seed in range(8):
        made(folder / f"base{seed}.onnx", seed)
        rows.append(f"base{seed},ImageNet,")
    moved(folder / "base1.onnx", folder / "tuned1.onnx", share=0.5)
    moved(folder / "base5.onnx", folder / "tuned5.onnx", share=0.1)
    (folder / "frozen5.onnx").write_bytes((folder / "base5.onnx").read_bytes())
    rows += ["tuned1,birds,ImageNet", "tuned5,birds,", "frozen5,cats,ImageNet"]
    return ingested(folder, rows)


def test_copies_find_their_originals(backbones: fdb.Database) -> None:
    found = parents(backbones)
    assert found["tuned1"] == ("base1", "pretraining_dataset")
    assert found["frozen5"] == ("base5", "pretraining_dataset")
    assert found["tuned5"] == ("base5", "")  # the catalog does not know, nor do the weights
    assert {parent for model, (parent, _) in found.items() if model.startswith("base")} == {""}
    result = fdb.lineage(backbones).set_index(model="model")
    assert result.sel(model="frozen5")[["equal_layers", "compared_layers"]].to_array().values.tolist() == [4, 4]
    families = result["family"].values.tolist()
    assert families == [0, 1, 0, 0, 0, 2, 0, 0, 1, 2, 2]


def test_blocks_of_models_give_the_same_relatives(backbones: fdb.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, expected = kinship(backbones), fdb.lineage(backbones)
    descend = kin._descend(backbones)
    monkeypatch.setattr(kin, "_BLOCK", 3)
    monkeypatch.setattr(run, "PART", 2)
    monkeypatch.setattr(run, "STREAMED_BYTES", 0)
    backbones = fdb.open(backbones.url)
    blocks = kinship(backbones)
    for name, values in whole._asdict().items():
        np.testing.assert_allclose(getattr(blocks, name), values, rtol=0, atol=1e-7, err_msg=name)
    np.testing.assert_array_equal(kin._descend(backbones), descend)
    assert descend.any()
    np.testing.assert_array_equal(blocks.related, whole.related)
    for name in ("parent", "family", "equal_layers", "compared_layers"):
        np.testing.assert_array_equal(fdb.lineage(backbones)[name], expected[name])
    monkeypatch.setattr(kin, "_ALL_COMPARED", 3)
    relatives = kinship(backbones)
    np.testing.assert_array_equal(relatives.related, whole.related)
    is_compared = relatives.compared > 0
    assert whole.related[is_compared].any() and not is_compared[whole.compared > 0].all()
    for name in ("similarity", "deviation", "distance"):
        np.testing.assert_array_equal(getattr(relatives, name)[is_compared], getattr(blocks, name)[is_compared])
    for name in ("parent", "family", "equal_layers", "compared_layers", "evidence"):
        np.testing.assert_array_equal(fdb.lineage(backbones)[name], expected[name])
    # Large summaries are not kept in memory.
    large = {key.kind for _, key in backbones.kept._entries if not key.part} & {"moments", "sketch"}
    assert not large


def test_similarity_and_distance_are_those_of_the_weights(backbones: fdb.Database) -> None:
    """Against cosines and norms of the filters themselves, within what 128 sums and four layers allow."""
    filters = np.split(backbones.dataset.filters.values, np.cumsum(backbones.layers["row_size"].values)[:-1])
    layers = [filters[i : i + 4] for i in range(0, len(filters), 4)]
    pairs = kinship(backbones)
    for first in range(11):
        for second in range(first):
            pair = list(zip(layers[first], layers[second], strict=True))
            cosines = [cosine(a, b) for a, b in pair]
            assert abs(pairs.similarity[first, second] - np.mean(cosines)) < 5 * 0.09 / 2
            assert pairs.compared[first, second] == 4
            centred = [(a - a.mean(axis=0), b - b.mean(axis=0)) for a, b in pair]
            square = sum(((a - b) ** 2).sum() for a, b in centred)
            largest = max(sum((layer**2).sum() for layer in side) for side in zip(*centred, strict=True))
            if square:
                np.testing.assert_allclose(pairs.distance[first, second], np.sqrt(square / largest), rtol=0.25)
    np.testing.assert_array_equal(pairs.related, pairs.related.T)


def test_checkpoints_by_epoch_and_initialisations(tmp_path: Path) -> None:
    """A training from its initialisation; a second training of it; a stranger's initialisation."""
    layers = initial(tmp_path / "e0.onnx", 0)
    initial(tmp_path / "stranger.onnx", 9)
    structure = [trained(out, into, i) * 3 for i, (into, out) in enumerate(SHAPES)]
    for epoch, share in ((1, 0.2), (5, 0.5), (20, 0.8)):
        mixed = [(1 - share) * a + share * b for a, b in zip(layers, structure, strict=True)]
        chain(tmp_path / f"e{epoch}.onnx", *mixed)
    other = [trained(out, into, 30 + i) * 3 for i, (into, out) in enumerate(SHAPES)]
    chain(tmp_path / "other-20.onnx", *(0.6 * a + 0.4 * b for a, b in zip(layers, other, strict=True)))
    rows = [f"e{epoch},net,digits,0,{epoch},a,0.{epoch}" for epoch in (20, 5, 1, 0)]
    rows += ["other-20,net,digits,0,20,b,0.5", "stranger,net,digits,1,0,a,0.1"]
    db = ingested(tmp_path, ["name,architecture,training_dataset,seed,epoch,recipe,accuracy", *rows])
    assert parents(db) == {
        "e20": ("e5", "epoch"),
        "e5": ("e1", "epoch"),
        "e1": ("e0", "epoch"),
        "e0": ("", ""),
        "other-20": ("e0", "initialisation"),
        "stranger": ("", ""),
    }
    assert fdb.lineage(db)["is_initialisation"].values.tolist() == [False, False, False, True, False, True]
    named = parents(db, training="architecture,recipe")
    assert named["e20"] == ("e5", "epoch")
    with pytest.raises(UsageError, match="training: expected columns of the catalog, got 'colour'"):
        fdb.lineage(db, training="colour")


def test_without_labels_distance_to_the_initialisation_tells(tmp_path: Path) -> None:
    layers = initial(tmp_path / "a.onnx", 0)
    structure = [trained(out, into, i) * 3 for i, (into, out) in enumerate(SHAPES)]
    for name, share in (("b", 0.8), ("c", 0.3)):
        chain(tmp_path / f"{name}.onnx", *((1 - share) * a + share * b for a, b in zip(layers, structure, strict=True)))
    db = ingested(tmp_path, ["name,family", "b,x", "c,x", "a,x"])
    assert parents(db) == {"a": ("", ""), "c": ("a", "initialisation"), "b": ("c", "nearer the initialisation")}
    assert fdb.lineage(db)["direction"].values.tolist() == ["", "parent", ""]  # c may be a sibling of b


def test_shared_layers_of_different_networks(tmp_path: Path) -> None:
    """A detector that contains the frozen backbone; small first layers and fixed filters in common do not count."""
    layers = [trained(out, into, i) for i, (into, out) in enumerate(SHAPES)]
    chain(tmp_path / "backbone.onnx", *layers)
    head = trained(64, 48, 50)
    chain(tmp_path / "detector.onnx", *layers, head)
    stem, fixed = trained(8, 4, 60), np.tile(np.random.default_rng(0).standard_normal((4, 1, 3, 3)), (16, 4, 1, 1))
    for seed in range(2):
        body = trained(40, 64, 70 + seed)
        chain(tmp_path / f"own{seed}.onnx", stem, fixed.astype(np.float32), body, trained(24, 40, 80 + seed))
    db = ingested(tmp_path, ["name,family", "backbone,a", "detector,b", "own0,c", "own1,c"])
    result = fdb.lineage(db)
    assert result["parent"].values.tolist() == ["", "backbone", "", ""]
    assert result["equal_layers"].values.tolist() == [0, 4, 0, 0]
    assert fdb.lineage(db.select(family=["b", "c"]))["parent"].values.tolist() == ["", "", ""]


def test_permuted_channels_are_not_recognised(tmp_path: Path) -> None:
    """What the documentation says is not detected."""
    layers = [trained(out, into, i) for i, (into, out) in enumerate(SHAPES)]
    chain(tmp_path / "base.onnx", *layers)
    rng, before, permuted = np.random.default_rng(0), np.arange(16), []
    for layer in layers:
        after = rng.permutation(len(layer))
        permuted.append(layer[after][:, before])
        before = after
    chain(tmp_path / "permuted.onnx", *permuted)
    db = ingested(tmp_path, ["name,family", "base,x", "permuted,x"])
    assert fdb.lineage(db)["parent"].values.tolist() == ["", ""]


def test_answer_and_graph(backbones: fdb.Database) -> None:
    answer = to_answer(fdb.lineage(backbones))
    by_model = {row["model"]: row for row in answer["rows"]}
    assert by_model["base1"]["parent"] is by_model["base1"]["direction"] is None
    assert by_model["tuned1"]["direction"] == "parent"
    assert (by_model["tuned5"]["parent"], by_model["tuned5"]["direction"]) == ("base5", None)
    assert answer["families"] == [["base1", "tuned1"], ["base5", "tuned5", "frozen5"]]
    assert answer["tree"]["roots"] == ["base1", "base5"]
    assert [(edge["parent"], edge["child"]) for edge in answer["tree"]["edges"]] == [
        ("base1", "tuned1"),
        ("base5", "tuned5"),
        ("base5", "frozen5"),
    ]
    order = [row["model"] for row in in_tree_order(answer["rows"]) if row["family"]]
    assert order == ["base1", "tuned1", "base5", "tuned5", "frozen5"]
    graph = to_dot(answer)
    assert '"base5" -> "frozen5" [label="1.00"];' in graph
    assert '"base5" -> "tuned5" [label="1.00", dir=none, style=dashed];' in graph
    hostile = to_dot({"families": [['a"b\\\n']], "tree": {"edges": []}})
    assert '"a\\"b\\\\�";' in hostile


def test_a_missing_sketch_is_computed_again(tmp_path: Path) -> None:
    """Databases of earlier versions have none; the first question computes it and stores the bytes of an ingest."""
    made(tmp_path / "a.onnx", 0)
    moved(tmp_path / "a.onnx", tmp_path / "b.onnx", share=0.1)
    db = ingested(tmp_path, ["name,family", "a,x", "b,x"])
    first = fdb.lineage(db)
    (stored,) = Path(db.url).glob("summaries/*/sketch-v1-*")
    data = stored.read_bytes()
    stored.unlink()
    assert fdb.lineage(fdb.open(db.url)).identical(first)
    assert stored.read_bytes() == data
