"""PyTorch checkpoints: files that torch 2.13 wrote, and files as it writes them, whose values NumPy knows.

`writer` was checked against torch: `torch.load` reads its files, big-endian ones too, to the same values. The hashes of
files in tests/data are those of torch's own tensors as float32.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import filterdb as fdb
from filterdb.errors import ModelError
from filterdb.models.checkpoint.reading import CheckpointFile, list_tensors
from filterdb.models.model import Model, Request, filters_hash
from filterdb.models.parse_errors import NotStoredError
from filterdb.schema import Kernels
from tests.models import weights
from tests.models.checkpoint.writer import (
    Instance,
    Ref,
    Storage,
    Tensor,
    archive,
    conv2d,
    legacy_checkpoint,
    module,
    tensor,
    zip_checkpoint,
)

DATA = Path(__file__).parents[2] / "data"

A, B = weights(8, 4, seed=1), weights(6, 8, seed=2)


def read(data: bytes | Path, tmp_path: Path, key: str = "", kernels: Kernels = ((3, 3),)) -> Model:
    if isinstance(data, bytes):
        (tmp_path / "model.pt").write_bytes(data)
        data = tmp_path / "model.pt"
    return CheckpointFile.parse(data, Request(data.name, 2**30, key, kernels=kernels)).model()


def kept(model: Model) -> dict[str, np.ndarray]:
    return {layer.name: layer.weight().filters for layer in model.layers}


def skipped(model: Model) -> dict[str, str]:
    return {skip.layer: skip.code for skip in model.skipped}


def same(model: Model, expected: dict[str, np.ndarray]) -> None:
    """Compare names, their order, and filters to the last bit."""
    filters = kept(model)
    assert list(filters) == list(expected)
    for name, weight in expected.items():
        assert np.array_equal(filters[name], np.asarray(weight, np.float32).reshape(-1, 9)), name


@pytest.mark.parametrize(
    ("name", "hashes"),
    [
        ("torch-zip.pt", {"0.weight": "a1d2ccd40056e0342e2b661acf962f5feb467a28da62273f0efd7b678bc3f15f"}),
        ("torch-legacy.pth", {"0.weight": "a1d2ccd40056e0342e2b661acf962f5feb467a28da62273f0efd7b678bc3f15f"}),
        ("torch-module.pt", {"0.weight": "2def7ccac6425d3fa0c04ce96d9ac6e91164ad75b32f08e0df11dfccaf58ebbd"}),
        (
            "torch-types.pt",
            {
                "a.weight": "91e7105be253721aa54f37b3d2d3ebfc67f8c54454cf1577bf9e35d69fa55308",
                "b.weight": "8c3fc36dfb03ac9dc8bd0e22a81147e49e2722f83879f4e8c86be68ca272e729",
            },
        ),
    ],
)
def test_files_that_torch_wrote(name: str, hashes: dict[str, str], tmp_path: Path) -> None:
    assert {layer: filters_hash(filters) for layer, filters in kept(read(DATA / name, tmp_path)).items()} == hashes


OF_TORCH = {
    "conv1.weight": ((8, 2, 7), "14cbb4bb4ec45db6cded9956aed86cef7459baf1b239003baff63b54cd05fb93"),
    "body.0.weight": ((8, 8, 5), "2fe084a01364c23c188f7aba4eb37b5a3acba272fe2911c2f6a21f2835d4ba93"),
    "body.2.weight": ((8, 1, 9), "06e8f2bfd09a6c4e1358abc016f177e537e899a840b5572a876fb8b5f5168316"),
    "body.3.weight": ((4, 8, 1), "f8af5bbee1cd7cb5018e55d589fbf1373b005be6bec8998275cc800860b0bd0b"),
    "stft.weight": ((2, 1, 1, 5), "540980277d44af074f8d88def02ce6578d08becbd707763a9543d8da229a05dd"),
    "square.weight": ((2, 2, 3, 3), "1596992a663c0e21f3963bd0968669251f8a7d26ea8f757c7bca7cda9d085881"),
}
"""The weights of the Conv1d and Conv2d of both files below, in torch's order: their shapes, and hashes of the values.

Beside them are a ConvTranspose1d, an LSTM, a LayerNorm over three dimensions, and parameters and buffers of rank 3.
"""


@pytest.mark.parametrize("name", ["torch-conv1d.pt", "torch-conv1d-module.pt"])
def test_one_dimensional_convolutions_that_torch_wrote(name: str, tmp_path: Path) -> None:
    model = read(DATA / name, tmp_path, kernels=None)
    layers = {layer.name: layer for layer in (*model.layers, *model.others)}
    assert {key: filters_hash(layer.weight().filters) for key, layer in layers.items()} == {
        key: digest for key, (_, digest) in OF_TORCH.items()
    }
    for key, (shape, _) in OF_TORCH.items():
        layer = layers[key]
        assert (layer.rank, *layer.kernel) == (len(shape) - 2, *(1, *shape[2:])[-2:])
        assert (layer.row["out_channels"], layer.row["in_channels"]) == shape[:2]
    for rank in (1, 2):
        assert [layers[key].row["conv_depth"] for key in OF_TORCH if layers[key].rank == rank] == list(
            range(4 if rank == 1 else 2)
        )
    assert [layer.name for layer in model.others] == ["body.3.weight"]
    is_module = "module" in name
    assert skipped(model) == ({"body.4.weight": "transposed"} if is_module else {})
    rows = [layers[key].row for key in ("conv1.weight", "body.0.weight", "body.2.weight")]
    stated = [(row["operator"], row["strides"], row["dilations"], row["groups"]) for row in rows]
    assert not is_module or stated == [
        ("Conv1d", "[2]", "[1]", 1),
        ("Conv1d", "[1]", "[3]", 1),
        ("Conv1d", "[1]", "[1]", 8),
    ]
    only = read(DATA / name, tmp_path)
    assert list(kept(only)) == ["square.weight"] and skipped(only) == {"stft.weight": "kernel"}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("form", [zip_checkpoint, legacy_checkpoint])
def test_both_forms_in_every_protocol(form: Any, protocol: int, tmp_path: Path) -> None:
    """Names do not sort as the layers come: the order of the file counts."""
    content = OrderedDict(
        [("z.weight", tensor(A)), ("z.bias", tensor(np.zeros(8, np.float32))), ("a.weight", tensor(B))]
    )
    model = read(form(content, protocol), tmp_path)
    same(model, {"z.weight": A, "a.weight": B})
    assert [layer.row["conv_depth"] for layer in model.layers] == [0, 1]
    assert (model.facts["source_format"], model.facts["depth_source"]) == ("PyTorch", "order")


@pytest.mark.parametrize("form", [zip_checkpoint, legacy_checkpoint])
def test_views_of_storages(form: Any, tmp_path: Path) -> None:
    """Slices, swapped axes, expanded axes and shared storages, each as NumPy slices it."""
    base = Storage(B.reshape(-1))
    small = weights(1, 1, seed=5)
    content = {
        "whole": Tensor(base, (6, 8, 3, 3), (72, 9, 3, 1)),
        "slice": Tensor(base, (2, 3, 3, 3), (72, 9, 3, 1), 72 + 2 * 9),
        "swapped": Tensor(base, (8, 6, 3, 3), (9, 72, 3, 1)),
        "rotated": Tensor(base, (6, 8, 3, 3), (72, 9, 1, 3)),
        "every second": Tensor(base, (3, 8, 3, 3), (144, 9, 3, 1)),
        "expanded": Tensor(Storage(small.reshape(-1)), (4, 5, 3, 3), (0, 0, 3, 1)),
    }
    model = read(form(content), tmp_path)
    same(
        model,
        {
            "whole": B,
            "slice": B[1:3, 2:5],
            "swapped": B.transpose(1, 0, 2, 3),
            "rotated": B.transpose(0, 1, 3, 2),
            "every second": B[::2],
            "expanded": np.broadcast_to(small, (4, 5, 3, 3)),
        },
    )


def test_one_stored_weight_under_two_names(tmp_path: Path) -> None:
    shared = tensor(A)
    first, second, other = read(zip_checkpoint({"a": shared, "b": shared, "c": tensor(A)}), tmp_path).layers
    assert first.stored_weight == second.stored_weight != other.stored_weight


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float64", "float8_e4m3fn", "float8_e5m2"])
def test_types_are_exact(name: str, tmp_path: Path) -> None:
    values = A.astype(name)
    stored = tensor(values)
    if name.startswith("float8"):
        stored.dtype = name
    same(read(zip_checkpoint({"w": stored}), tmp_path), {"w": values.astype(np.float32)})


@pytest.mark.parametrize("dtype", ["float32", "float64", ml_dtypes.bfloat16])
def test_big_endian_files(dtype: Any, tmp_path: Path) -> None:
    values = A.astype(dtype)
    same(read(zip_checkpoint({"w": tensor(values)}, is_big_endian=True), tmp_path), {"w": values.astype(np.float32)})


def test_quantised_weights_are_in_the_ledger(tmp_path: Path) -> None:
    stored = tensor(np.ones((4, 3, 3, 3), np.int8))
    stored.storage.kind = "QInt8Storage"
    assert skipped(read(zip_checkpoint({"q": stored, "a": tensor(A)}), tmp_path)) == {"q": "dtype"}


def nested(order: tuple[str, ...] = ("state_dict", "optimizer")) -> dict[str, Any]:
    parts = {
        "state_dict": OrderedDict([("module.conv.weight", tensor(A)), ("module.conv2.weight", tensor(B))]),
        "optimizer": {"state": {0: {"step": 3, "exp_avg": tensor(A)}}, "param_groups": [{"params": [0], "lr": 0.1}]},
        "ema": {"module": OrderedDict([("conv.weight", tensor(2 * A)), ("conv2.weight", tensor(2 * B))])},
    }
    return {"epoch": 3, "args": Instance(Ref("argparse", "Namespace"), {"lr": 0.1}), **{n: parts[n] for n in order}}


def test_the_optimizer_is_left_out(tmp_path: Path) -> None:
    same(read(zip_checkpoint(nested()), tmp_path), {"module.conv.weight": A, "module.conv2.weight": B})


def test_an_averaged_copy_must_be_chosen(tmp_path: Path) -> None:
    data = zip_checkpoint(nested(("state_dict", "ema", "optimizer")))
    with pytest.raises(ModelError, match=r"expected one network, got 2: 'state_dict' \(2\), 'ema.module' \(2\)"):
        read(data, tmp_path)
    same(read(data, tmp_path, "ema.module"), {"conv.weight": 2 * A, "conv2.weight": 2 * B})


def whole_module() -> Instance:
    norm = module(
        "torch.nn.modules.batchnorm.BatchNorm2d",
        {"weight": np.ones(8, np.float32)},
        buffers={"running_mean": tensor(np.zeros(8, np.float32))},
    )
    body = module("my.net.Body", modules={"z": conv2d(A, "my.Conv2dSame", groups=2, stride=(2, 1)), "norm": norm})
    up = conv2d(weights(4, 4, seed=9), "torch.nn.modules.conv.ConvTranspose2d")
    return module(
        "my.net.Net",
        modules={"body": body, "a": conv2d(B), "up": up},
        buffers={"grid_": tensor(weights(3, 3, seed=4)), "kept_": tensor(weights(2, 2, seed=4))},
        transient={"grid_"},
    )


@pytest.mark.parametrize("form", [zip_checkpoint, legacy_checkpoint])
def test_whole_modules_say_what_their_layers_are(form: Any, tmp_path: Path) -> None:
    """The file has classes that are not installed. Buffers that state_dict leaves out are left out."""
    model = read(form(whole_module()), tmp_path)
    same(model, {"kept_": weights(2, 2, seed=4), "body.z.weight": A, "a.weight": B})
    assert skipped(model) == {"up.weight": "transposed"}
    facts = [[layer.row[name] for name in ("operator", "groups", "strides", "batch_norm")] for layer in model.layers]
    assert facts[1:] == [["Conv2dSame", 2, "[2, 1]", "unfolded"], ["Conv2d", 1, "[1, 1]", "unfolded"]]


def test_modules_below_a_key(tmp_path: Path) -> None:
    """As YOLOv5 saves them: the module, its averaged copy, and an optimizer."""
    same(read(zip_checkpoint({"model": conv2d(A), "ema": None, "optimizer": {}}), tmp_path), {"weight": A})
    assert kept(read(zip_checkpoint({"model": conv2d(A), "ema": conv2d(2 * A)}), tmp_path, "ema")).keys() == {"weight"}


def test_a_module_in_two_places_counts_twice(tmp_path: Path) -> None:
    """As state_dict lists it. A dictionary that two keys name is one network."""
    layer = conv2d(A)
    assert list(kept(read(zip_checkpoint(module("N", modules={"a": layer, "b": layer})), tmp_path))) == [
        "a.weight",
        "b.weight",
    ]
    weights_ = {"w": tensor(A)}
    same(read(zip_checkpoint({"model": weights_, "best": weights_}), tmp_path), {"w": A})


def test_only_the_needed_bytes_are_read(tmp_path: Path) -> None:
    """A file can be fetched in parts: the directory and the pickle, then each weight."""
    large = Storage(np.zeros(4_000_000, np.float32))
    path = tmp_path / "model.pt"
    path.write_bytes(zip_checkpoint({"fc.weight": Tensor(large, (4_000_000,), (1,)), "w": tensor(A)}))
    reads: list[int] = []

    class Counting:
        def __enter__(self) -> Any:
            self.file = path.open("rb")
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def seek(self, offset: int) -> int:
            return self.file.seek(offset)

        def read(self, size: int) -> bytes:
            reads.append(size)
            return self.file.read(size)

    tensors = list_tensors(Counting, path.stat().st_size, "model.pt")
    assert np.array_equal(tensors[1].read(), A)
    assert sum(reads) < A.nbytes + 10_000
    assert path.stat().st_size > 16_000_000


def test_a_storage_that_is_too_short_costs_its_layer(tmp_path: Path) -> None:
    short = Tensor(Storage(A.reshape(-1)), (9, 4, 3, 3), (36, 9, 3, 1))
    model = read(zip_checkpoint({"short": short, "w": tensor(A)}), tmp_path)
    with pytest.raises(ValueError, match="expected a storage of at least"):
        model.layers[0].weight()
    assert np.array_equal(model.layers[1].weight().filters, A.reshape(-1, 9))


def test_a_tensor_without_data(tmp_path: Path) -> None:
    class Meta:
        def __reduce__(self) -> tuple[Any, ...]:
            args = (Ref("torch", "float32"), (4, 3, 3, 3), (27, 9, 3, 1), False)
            return Ref("torch._utils", "_rebuild_meta_tensor_no_storage"), args

    with pytest.raises(NotStoredError, match="no data"):
        read(zip_checkpoint({"w": Meta()}), tmp_path).layers[0].weight()


@pytest.mark.parametrize(
    ("member", "what"),
    [
        ("constants.pkl", "a TorchScript archive; save its weights instead"),
        ("code/__torch__.py", "a TorchScript archive"),
        ("serialized_exported_program.json", r"an exported PyTorch program \(\.pt2\)"),
        (".data/extern_modules", r"a torch\.package"),
    ],
)
def test_other_archives_of_torch_are_named(member: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=what):
        read(archive({"data.pkl": b"", member: b""}), tmp_path)


def test_a_model_without_a_convolution(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no convolution found"):
        read(zip_checkpoint({"fc.weight": tensor(np.ones((3, 4), np.float32))}), tmp_path)


def test_commands_take_checkpoints(tmp_path: Path) -> None:
    """Both forms in a folder, beside a .bin that is none: one network, found to be the same."""
    content = {"conv.weight": tensor(A), "conv2.weight": tensor(B)}
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a.pt").write_bytes(zip_checkpoint(content))
    (tmp_path / "models" / "pytorch_model.bin").write_bytes(legacy_checkpoint(content))
    (tmp_path / "models" / "weights.bin").write_bytes(bytes(100))
    fdb.ingest(tmp_path / "db", [str(tmp_path / "models")])
    models = fdb.open(tmp_path / "db").models
    assert models.sizes["model"] == 2
    assert set(models["source_format"].values) == {"PyTorch"}
    assert np.array_equal(
        fdb.open(tmp_path / "db").dataset["filters"].values, np.concatenate([A.reshape(-1, 9), B.reshape(-1, 9)] * 2)
    )
    assert json.loads(str(models["filter_shapes"].values[0])) == {"(3, 3)": 80}
