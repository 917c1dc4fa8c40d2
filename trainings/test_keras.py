"""Keras models in memory, and the monitor under Keras, on each backend in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import csv, sys
import numpy as np
import keras
import filterdb as fdb
from filterdb.monitor.keras import Callback

keras.utils.set_random_seed(0)
separable = keras.layers.SeparableConv2D(24, 3, name="separable")
inner = keras.Sequential([keras.Input((10, 10, 16)), separable], name="inner")
inputs = keras.Input((12, 12, 3))
x = keras.layers.Conv2D(16, 3, activation="relu", name="first")(inputs)
x = inner(x)
x = keras.layers.BatchNormalization()(x)
x = keras.layers.DepthwiseConv2D(5, depth_multiplier=2, name="wide")(x)
x = keras.layers.Conv2DTranspose(8, 3, name="up")(x)
x = keras.layers.GlobalAveragePooling2D()(x)
model = keras.Model(inputs, keras.layers.Dense(4)(x), name="small")
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
images, labels = np.random.default_rng(0).normal(size=(64, 12, 12, 3)), np.arange(64) % 4
callback = Callback("rows.csv", every=4, budget=None)
model.fit(images, labels, batch_size=8, epochs=2, callbacks=[callback], verbose=0)
rows = list(csv.DictReader(open("rows.csv")))
assert [row["step"] for row in rows[::3]] == ["0", "4", "8", "12", "16"], rows
assert [row["epoch"] for row in rows[::3]] == ["0", "0", "0", "1", "1"], rows
moved = [float(row["moved"]) for row in rows if row["moved"]]
assert len(moved) == 12 and min(moved) > 1e-4, moved  # the weights in the middle of an epoch
model.save("small.keras")
file, memory = fdb.summarise("small.keras"), fdb.summarise(model)
assert memory.attrs["model"] == "small"
for name in ("layer", "norm", "variance_entropy", "groups", "out_channels"):
    np.testing.assert_array_equal(file[name].values, memory[name].values)
latest = {row.layer: row for row in callback.monitor.latest}
read = {str(name): i for i, name in enumerate(file["layer"].values) if file["kernel"].values[i] != "1x1"}
assert set(latest) == set(read), (set(latest), set(read))
for name, i in read.items():
    for measure in ("variance_entropy", "sparsity", "norm", "centre_energy"):
        np.testing.assert_allclose(getattr(latest[name], measure), file[measure].values[i], rtol=1e-12)
model.fit(images, labels, batch_size=8, callbacks=[callback], verbose=0)
assert [row["step"] for row in csv.DictReader(open("rows.csv"))][::3] == ["0", "4", "8", "12", "16", "16", "20", "24"]
db = fdb.ingest("db", model).database
assert db.models["model"].values.tolist() == ["small"]
print("fine")
"""


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_keras(backend: str, tmp_path: object) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=str(tmp_path),
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "fine"
