"""The files that docs/how-to/kubernetes-without-operator.md shows, as a reader would use them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deploy.api_server import Api
from tests.deploy.manifests import DIGEST, KUBERNETES, ROOT, helm, kubectl, parse
from tests.docs.pages import blocks, commands

pytestmark = pytest.mark.slow

GUIDE = "docs/how-to/kubernetes-without-operator.md"
IMAGE = f"registry.example/team/filterdb@{DIGEST}"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """The files that the guide shows, beside a copy of deploy/, with a reader's names for those in capitals."""
    shutil.copytree(KUBERNETES.parent, tmp_path / "deploy")
    names = {"REGISTRY": "registry.example/team", "sha256:…": DIGEST, "s3://BUCKET": "s3://mine", "iam::…": "iam::mine"}
    shown = {block.file: block.text for block in blocks(GUIDE) if block.file}
    pattern = "|".join(map(re.escape, names))
    for name, text in shown.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(re.sub(pattern, lambda match: names[match[0]], text))
    return {name: tmp_path / name for name in shown}


def test_the_files_can_be_used_as_they_stand(files: dict[str, Path]) -> None:
    assert len(files) == 4
    for name, path in files.items():
        command: list[str | Path] = [kubectl(), "kustomize", path.parent]
        if name == "values.yaml":
            command = [helm(), "template", "filterdb", path.parent / "deploy/helm/filterdb", "--values", path]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, (name, done.stderr)
        assert set(re.findall(r"image: (\S+)", done.stdout)) == {IMAGE}, name
        if name == "mine/reduce/kustomization.yaml":
            jobs = {each["metadata"]["name"]: each for each in parse(done.stdout) if each["kind"] == "Job"}
            workers = jobs["filterdb-reduce-workers"]["spec"]
            assert (workers["parallelism"], workers["completions"]) == (8, 8)


@pytest.mark.parametrize("job", ["ingest", "reduce"])
def test_the_commands_of_a_job(job: str, files: dict[str, Path], serve: Callable[[Api], dict[str, str]]) -> None:
    """With the real kubectl, against a server that answers as Kubernetes does: nothing is left at the end."""
    text = next(block.text for block in blocks(GUIDE) if block.not_run and f"--kustomize mine/{job}" in block.text)
    lines = [line for line in commands(text) if not line.startswith("kubectl --namespace filterdb logs")]
    if job == "ingest":
        lines.append("kubectl delete --kustomize mine/ingest")
        assert f"`{lines[-1]}`" in (ROOT / GUIDE).read_text()
    api = Api()
    done = {"conditions": [{"type": "Complete", "status": "True"}]}
    api.on_create = lambda plural, name: api.objects[plural, name].update(status=done) if plural == "jobs" else None
    environment = serve(api) | {"PATH": f"{kubectl().parent}:/usr/bin:/bin"}
    folder = files[f"mine/{job}/kustomization.yaml"].parent.parent.parent
    for line in lines:
        run = subprocess.run(
            shlex.split(line), env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=60
        )
        assert run.returncode == 0, (line, run.stderr)
    expected = {"ingest": 2, "reduce": 6}
    assert len(api.created) == expected[job]
    assert api.objects == {}
