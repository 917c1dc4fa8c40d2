"""The monitor in a plain loop and under Lightning, on real networks."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn

import filterdb as fdb
from filterdb.monitor import Alarm, Callback, MonitorWarning
from filterdb.monitor.lightning import Callback as LightningCallback
from filterdb.monitor.networks import list_layers


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 5), nn.ReLU(), nn.Conv2d(32, 16, 3)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))


def train(model: nn.Module, monitor: Callback, steps: int, change: Any = None) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for step in range(steps):
        images, labels = torch.randn(16, 3, 12, 12), torch.randint(0, 4, (16,))
        images[:, 0] += labels[:, None, None]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        if change is not None:
            change(model, step)
        monitor.step(model)


def test_numbers_equal_those_of_the_exported_file(tmp_path: Path) -> None:
    """The entropies to 1e-12, of the ONNX file in a database too. An export folds batch normalisation into weights."""
    model, monitor = network(), Callback(every=10, budget=None)
    model[1] = nn.Identity()
    train(model, monitor, 21)
    rows = {row.layer: row for row in monitor.latest}
    torch.onnx.export(model.eval(), (torch.zeros(1, 3, 12, 12),), tmp_path / "model.onnx", dynamo=True)
    db = fdb.ingest(tmp_path / "db", tmp_path / "model.onnx").database
    judged = fdb.degeneration(db, kernel="5x5")
    np.testing.assert_allclose(rows["3.weight"].variance_entropy, judged["variance_entropy"].values, rtol=1e-12)
    judged = fdb.degeneration(db)
    ours = [rows["0.weight"], rows["5.weight"]]
    for name in ("variance_entropy", "sparsity", "p_value"):
        np.testing.assert_allclose([getattr(row, name) for row in ours], judged[name].values, rtol=1e-9, err_msg=name)
    np.testing.assert_allclose([row.variance_entropy for row in ours], judged["variance_entropy"].values, rtol=1e-12)
    summary = fdb.summarise(model)
    for name in ("norm", "centre_energy", "sparsity", "variance_entropy"):
        np.testing.assert_allclose([getattr(r, name) for r in monitor.latest], summary[name].values, rtol=1e-12)


def test_tensors_are_not_copied() -> None:
    model = network()
    layer = list_layers(model)[0]
    assert np.shares_memory(layer.read(), model[0].weight.detach().numpy())


def test_every_writer_has_every_row(tmp_path: Path) -> None:
    import pyarrow.parquet as pq
    from tensorboardX import SummaryWriter

    places = [tmp_path / "rows.csv", tmp_path / "rows.parquet", tmp_path / "board"]
    with SummaryWriter(str(tmp_path / "other")) as board, Callback([*places, board], every=5, budget=None) as monitor:
        train(network(), monitor, 11)
        rows = list(csv.DictReader((tmp_path / "rows.csv").open()))  # readable while the training runs
    table = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    assert len(rows) == len(table) == 9
    assert [float(row["norm"]) for row in rows] == [row["norm"] for row in table]
    for folder in ("board", "other"):
        (events,) = (tmp_path / folder).iterdir()
        assert b"filters/variance_entropy/0.weight" in events.read_bytes()


def test_a_layer_without_gradient_is_reported(tmp_path: Path) -> None:
    def cut(model: nn.Sequential, step: int) -> None:
        if step == 30:
            model[3].register_forward_hook(lambda module, inputs, output: output.detach())

    seen: list[Alarm] = []
    with (
        Callback(tmp_path / "rows.csv", every=5, budget=None, on_alarm=seen.append) as monitor,
        pytest.warns(MonitorWarning, match=r"0\.weight: stopped"),
    ):
        train(network(), monitor, 220, cut)
    assert {alarm.layer for alarm in seen if alarm.kind == "stopped"} == {"0.weight", "3.weight"}
    alarms = [row for row in csv.DictReader((tmp_path / "rows.csv").open()) if row["alarm"]]
    assert {row["layer"] for row in alarms if row["alarm"] == "stopped"} == {"0.weight", "3.weight"}


def test_a_frozen_layer_is_not(tmp_path: Path) -> None:
    model = network()
    model[3].weight.requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(model, Callback(every=5, budget=None), 60)


class Module(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters())


def trainer(callback: Any, tmp_path: Path, **options: Any) -> pl.Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return pl.Trainer(callbacks=[callback], accelerator="cpu", default_root_dir=tmp_path, **quiet, **options)


def loader() -> torch.utils.data.DataLoader[Any]:
    data = torch.utils.data.TensorDataset(torch.randn(64, 3, 12, 12), torch.randint(0, 4, (64,)))
    return torch.utils.data.DataLoader(data, batch_size=8)


def test_lightning(tmp_path: Path) -> None:
    """Steps are those of the optimiser, with accumulated gradients too; epochs are the trainer's."""
    callback = LightningCallback(tmp_path / "rows.csv", every=4, budget=None)
    trainer(callback, tmp_path, max_epochs=4, accumulate_grad_batches=2).fit(Module(), loader())
    rows = list(csv.DictReader((tmp_path / "rows.csv").open()))
    assert [(row["step"], row["epoch"]) for row in rows[::3]] == [
        ("0", "0"),
        ("4", "0"),
        ("8", "1"),
        ("12", "2"),
        ("16", "3"),
    ]
    assert {row["layer"] for row in rows} == {"network.0.weight", "network.3.weight", "network.5.weight"}


def test_lightning_goes_on_in_a_second_fit(tmp_path: Path) -> None:
    """With a trainer that counts from 0 again, as for fine-tuning after a warm-up."""
    import pyarrow.parquet as pq

    callback = LightningCallback([tmp_path / "rows.csv", tmp_path / "rows.parquet"], every=4, budget=None)
    module = Module()
    for _ in range(2):
        trainer(callback, tmp_path, max_epochs=1).fit(module, loader())
    steps = [int(row["step"]) for row in csv.DictReader((tmp_path / "rows.csv").open())]
    assert steps == pq.read_table(tmp_path / "rows.parquet")["step"].to_pylist()
    assert steps[::3] == [0, 4, 8, 0, 4, 8]


def test_lightning_closes_files_of_a_training_that_fails(tmp_path: Path) -> None:
    class Failing(Module):
        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            if index == 3:
                raise RuntimeError("boom")
            return super().training_step(batch, index)

    import pyarrow.parquet as pq

    with pytest.raises(RuntimeError, match="boom"):
        trainer(LightningCallback(tmp_path / "rows.parquet", every=1, budget=None), tmp_path, max_epochs=1).fit(
            Failing(), loader()
        )
    assert pq.read_table(tmp_path / "rows.parquet").num_rows == 12
