"""The files that docs/how-to/kubernetes-without-operator.md shows, as a reader would use them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.manifests import DIGEST, KUBERNETES, helm, kubectl, parse
from tests.docs.pages import blocks

pytestmark = pytest.mark.slow

IMAGE = f"registry.example/team/filterdb@{DIGEST}"


def test_the_files_of_the_guide(tmp_path: Path) -> None:
    """Each kustomization and each values file that it shows can be used as it stands, with the reader's own names."""
    shutil.copytree(KUBERNETES.parent, tmp_path / "deploy")
    names = {"REGISTRY": "registry.example/team", "sha256:…": DIGEST, "s3://BUCKET": "s3://mine", "aws:iam::…": "aws:iam::mine"}
    files = {}
    for block in blocks("docs/how-to/kubernetes-without-operator.md"):
        if block.file:
            files[block.file] = tmp_path / block.file
            files[block.file].parent.mkdir(parents=True, exist_ok=True)
            text = block.text
            for name, value in names.items():
                text = text.replace(name, value)
            files[block.file].write_text(text)
    assert len(files) == 4
    for name, path in files.items():
        command: list[str | Path] = [kubectl(), "kustomize", path.parent]
        if name == "values.yaml":
            command = [helm(), "template", "filterdb", tmp_path / "deploy/helm/filterdb", "--values", path]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, (name, done.stderr)
        images = set(re.findall(r"image: (\S+)", done.stdout))
        assert images == {IMAGE}, name
        if name == "mine/reduce/kustomization.yaml":
            jobs = {each["metadata"]["name"]: each for each in parse(done.stdout) if each["kind"] == "Job"}
            workers = jobs["filterdb-reduce-workers"]["spec"]
            assert (workers["parallelism"], workers["completions"]) == (8, 8)
