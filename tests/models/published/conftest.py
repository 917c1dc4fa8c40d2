"""The published data set as its tests have it: where it lies, and what it says when it was read as it was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from filterdb.models.published.hdf5 import opened_filters
from filterdb.models.published.metadata import Published
from filterdb.schema import LABELS
from tests.models.published.published import labels


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dataset.h5"


def read_rows(path: Path, first: int, count: int) -> np.ndarray:
    with opened_filters(path) as filters:
        return filters.read(first, count)


def layers_of(found: Published) -> list[tuple[Any, ...]]:
    return [
        (layer.model, layer.name, layer.runs, layer.conv_depth, layer.conv_depth_norm, layer.in_channels)
        for layer in found.layers
    ]


BY_DEPTH = [
    ("resnet_imagenet_11", "conv0", ((0, 6),), 0, 0.0, 3),
    ("resnet_imagenet_11", "conv1", ((6, 2),), 1, 0.5, 2),
    ("resnet_imagenet_11", "conv1#2", ((8, 4),), 1, 0.5, 2),
    ("resnet_imagenet_11", "conv2", ((12, 2),), 2, 1.0, 1),
    ("twin", "conv0", ((14, 4),), 0, 0.0, 2),
    ("twin#2", "conv0", ((18, 3),), 0, 0.0, 1),
    ("twin#2", "conv1", ((21, 3),), 1, 1.0, 3),
]


def check_models(found: Published) -> None:
    assert found.rows == 24
    resnet, twin, other = found.models
    assert [model.id for model in found.models] == ["resnet_imagenet_11", "twin", "twin#2"]
    assert resnet.labels == labels(
        task="Classification",
        visual_category="natural",
        training_dataset="ImageNet-1k",
        precision="float32",
        paper="https://example.org/paper",
        url="https://example.org/resnet",
    )
    assert list(resnet.labels) == list(LABELS)
    assert twin.labels == labels(
        task="Auto-Encoder",
        visual_category="fractals",
        training_dataset="FractalDB-1k, Größe",
        pretraining_dataset="ImageNet-1k",
        precision="float32",
    )
    assert (other.labels["task"], other.labels["pretraining_dataset"]) == ("Segmentation (2)", "unknown")
    assert (resnet.producer, resnet.opset, resnet.model_depth) == ("pytorch 1.9", 11, 31)
    assert (other.producer, other.opset, other.model_depth) == ("tf2onnx 1.8", 12, 9)
    assert resnet.operators == {"Conv": 4, "Relu": 3}
    assert twin.operators == {"Conv": 1, "Upsample": 2}
    assert resnet.filter_shapes == {"(1, 1)": 100, "(3, 3)": 14, "(7, 7)": 6}
    assert twin.filter_shapes == {"(3, 3)": 4}
    assert (resnet.total_filters, resnet.share_3x3, twin.share_3x3) == (20, 0.7, 1.0)
    assert list(resnet.extra) == ["Name", "Selection"]
    assert (resnet.extra["Name"], twin.extra["Selection"], float(other.extra["Selection"])) == ("resnet", "unknown", 1)


def damage(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
