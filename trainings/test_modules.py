"""A torch module in memory against the files that PyTorch writes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import filterdb as fdb
from filterdb.monitor.networks import list_layers

SAME = ("filters", "sparsity", "variance_entropy", "p_value", "relative_spread", "peak", "norm", "centre_energy")


class Local(nn.Conv2d):
    """A user's own class of convolution."""


def everything() -> nn.Module:
    """Return a module with every kind of convolution that the readers tell apart."""
    torch.manual_seed(0)

    class Network(nn.Module):  # a class that no pickle can name
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 16, 3, padding=1)
            self.body = nn.Sequential(
                nn.BatchNorm2d(16), nn.Conv2d(16, 32, 5, groups=4, stride=2), nn.ReLU(), Local(32, 16, 3, dilation=2)
            )
            self.depthwise = nn.Conv2d(16, 32, 7, groups=16, padding=3)
            self.pointwise = nn.Conv2d(32, 8, 1)
            self.up = nn.ConvTranspose2d(8, 8, 3)
            self.series = nn.Conv1d(8, 16, 9)
            self.volume = nn.Conv3d(2, 4, 3)
            self.again = self.first
            self.head = nn.Linear(8, 4)
            self.key = lambda value: value

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.up(self.pointwise(self.depthwise(self.body(self.first(x)))))
            return self.series(x.flatten(2)).mean(dim=2)

    return Network().eval()


def assert_same(one: Any, two: Any, but: tuple[str, ...] = ()) -> None:
    """Compare what two results say of layers of the same names."""
    assert one["layer"].values.tolist() == two["layer"].values.tolist()
    for name in {*SAME, "kernel", "in_channels", "out_channels", "conv_depth", "depthwise"} - {*but}:
        np.testing.assert_array_equal(one[name].values, two[name].values, err_msg=name)


def test_a_module_is_read_as_its_state_dict(tmp_path: Path) -> None:
    """A state dict does not say groups, nor which equal-sided weight is transposed; all else is equal."""
    module = everything()
    torch.save(module.state_dict(), tmp_path / "state.pt")
    memory, file = fdb.summarise(module), fdb.summarise(tmp_path / "state.pt")
    assert "again.weight" in memory["layer"].values
    assert memory.sizes["layer"] == 7
    assert_same(memory, file, but=("depthwise",))
    groups = dict(zip(memory["layer"].values.tolist(), memory["groups"].values.tolist(), strict=True))
    assert (groups["body.1.weight"], groups["depthwise.weight"], groups["first.weight"]) == (4, 16, 1)


class Plain(nn.Module):
    """A module that a pickle can name."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.body = nn.Sequential(nn.BatchNorm2d(16), nn.Conv2d(16, 32, 5, groups=4), nn.Conv2d(32, 32, 3, groups=32))
        self.up = nn.ConvTranspose2d(32, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(self.body(self.first(x)))


def test_a_module_is_read_as_a_file_of_it(tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = Plain().eval()
    torch.save(module, tmp_path / "module.pt")
    memory, file = fdb.summarise(module), fdb.summarise(tmp_path / "module.pt")
    assert_same(memory, file)
    assert memory.attrs["skipped"] == file.attrs["skipped"] == '{"transposed": 1}'
    np.testing.assert_array_equal(memory["groups"].values, file["groups"].values)


def test_a_module_is_read_as_the_onnx_file_of_it(tmp_path: Path) -> None:
    """Filters, groups and channels, by the names of the weights."""
    torch.manual_seed(2)
    layers = [
        nn.Conv2d(3, 16, 3),
        nn.ReLU(),
        nn.Conv2d(16, 32, 5, groups=4),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, groups=32),
    ]
    module = nn.Sequential(*layers).eval()
    torch.onnx.export(module, (torch.zeros(1, 3, 24, 24),), tmp_path / "model.onnx", dynamo=True)
    memory, file = fdb.summarise(module), fdb.summarise(tmp_path / "model.onnx")
    for name in (*SAME, "in_channels", "out_channels", "groups", "depthwise", "kernel", "conv_depth"):
        np.testing.assert_array_equal(memory[name].values, file[name].values, err_msg=name)


def test_a_computed_weight_is_the_one_that_is_used() -> None:
    torch.manual_seed(3)
    normed = torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 16, 3))
    with torch.no_grad():
        normed.parametrizations.weight.original0 *= 3
    plain = nn.Conv2d(3, 16, 3)
    plain.weight = nn.Parameter(normed.weight.detach().clone())
    one, two = fdb.summarise(nn.Sequential(normed)), fdb.summarise(nn.Sequential(plain))
    np.testing.assert_array_equal(one["norm"].values, two["norm"].values)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_types_are_read_as_in_files(dtype: torch.dtype, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 32, 3), nn.Conv2d(32, 16, 3)).to(dtype)
    torch.save(module, tmp_path / "module.pt")
    assert_same(fdb.summarise(module), fdb.summarise(tmp_path / "module.pt"))


def test_wrappers_and_memory_formats_change_nothing() -> None:
    module = Plain()
    expected = fdb.summarise(module)
    wrapped = nn.DataParallel(module)
    assert_same(fdb.summarise(wrapped), expected)
    assert_same(fdb.summarise(torch.compile(module)), expected)
    assert_same(fdb.summarise(module.to(memory_format=torch.channels_last)), expected)
    assert [layer.name for layer in list_layers(wrapped)] == [n for n in expected["layer"].values if "1x1" not in n]


def test_check_names_models(tmp_path: Path) -> None:
    module = Plain()
    torch.save(module.state_dict(), tmp_path / "file.pt")
    result = fdb.check({"memory": module, "stored": tmp_path / "file.pt"})
    assert result["file"].values.tolist() == ["memory", "stored"]
    assert fdb.check([module, module])["file"].values.tolist() == ["Plain", "Plain#2"]
    assert not (result["verdict"].sel(rule="dead")).any()
    with torch.no_grad():
        module.first.weight.zero_()
    assert fdb.check(module)["verdict"].sel(rule="dead", layer="Plain:first.weight").item()


def test_ingest_and_nearest(tmp_path: Path) -> None:
    """A module in memory finds itself in the database that it was ingested into."""
    torch.manual_seed(4)
    wide = [nn.Sequential(nn.Conv2d(16, 64, 3), nn.Conv2d(64, 64, 3)) for _ in range(3)]
    with pytest.raises(fdb.errors.UsageError, match="which becomes its id, got the class Sequential"):
        fdb.ingest(tmp_path / "db", wide[0])
    db = fdb.ingest(tmp_path / "db", {"one": wide[0], "two": wide[1]}).database
    assert sorted(db.models["model"].values.tolist()) == ["one", "two"]
    nearest = fdb.nearest(db, wide[1])
    assert nearest["model"].values[0] == "two" and bool(nearest["same_filters"].values[0])
    assert not fdb.nearest(db, wide[2])["same_filters"].any()
    entropies = fdb.degeneration(db.select(model="one"))["variance_entropy"].values
    np.testing.assert_allclose(entropies, fdb.summarise(wide[0])["variance_entropy"].values, rtol=1e-12)


def test_a_module_without_values_is_an_error() -> None:
    with pytest.raises(fdb.errors.InputError, match="run the model once"):
        fdb.summarise(nn.Sequential(nn.LazyConv2d(3, 3)))
    with pytest.raises(fdb.errors.InputError, match=r"Sequential: .*run the model once"):
        fdb.summarise(nn.Sequential(nn.Conv2d(3, 3, 3, device="meta")))
    with pytest.raises(fdb.errors.InputError, match="no convolution found"):
        fdb.summarise(nn.Linear(3, 3))
