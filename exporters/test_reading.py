"""Every 3×3 convolution that a real exporter writes is read to its true weights, or reported with a reason."""

from __future__ import annotations

import pytest

from exporters.conftest import FOLDERS, files_of
from exporters.reading import File, check_faults, compare

pytestmark = pytest.mark.timeout(7200)  # the first test waits for all files to be read

Readings = dict[str, dict[str, File]]


@pytest.mark.parametrize("folder", FOLDERS)
def test_files_were_written(folder: str) -> None:
    """An export that silently writes next to nothing makes no green run."""
    assert len(files_of(folder)) >= {"files": 1_000, "packages": 50}[folder]


def test_layers(readings: Readings, folder: str, name: str) -> None:
    """Weights, strides, dilations, groups, depth and batch normalisation are those of the file; none is lost."""
    faults = [outcome for outcome in compare(readings[folder][name]) if outcome.is_fault]
    assert not faults


def test_check(readings: Readings, folder: str, name: str) -> None:
    """`check` does not pass over a convolution that it could not read, nor over a file without any."""
    file = readings[folder][name]
    assert not check_faults(file, compare(file))
