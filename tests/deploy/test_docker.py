"""deploy/docker: linted, read, and what of it can be run without a container engine, run.

`tests/deploy/build-image` builds the real image and runs the jobs in it, where podman can be installed.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from filterdb.cluster import settings
from tests import models
from tests.deploy import manifests

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
DOCKER = ROOT / "deploy" / "docker"


def instructions() -> list[tuple[str, str]]:
    """(FROM, …), (RUN, …) in order, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1].strip()) for line in text.splitlines() if line.strip()]


def stages() -> list[list[tuple[str, str]]]:
    """The instructions after each FROM, which comes first."""
    found: list[list[tuple[str, str]]] = []
    for name, rest in instructions():
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append((name, rest))
    return found


def environment(stage: list[tuple[str, str]]) -> dict[str, str]:
    arguments = dict(rest.split("=", 1) for name, rest in stage if name == "ARG" and "=" in rest)
    pairs = [pair for name, rest in stage if name == "ENV" for pair in shlex.split(rest)]
    found = dict(pair.split("=", 1) for pair in pairs)
    return {name: re.sub(r"\$\{(\w+)\}", lambda m: arguments[m[1]], value) for name, value in found.items()}


BUILD, FINAL = stages()


def test_hadolint() -> None:
    program = Path(sysconfig.get_path("scripts")) / "hadolint"
    done = subprocess.run([program, DOCKER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_base_is_pinned_by_a_digest_that_the_builder_must_give() -> None:
    assert instructions()[0] == ("ARG", "PYTHON_DIGEST")  # no default
    for stage in (BUILD, FINAL):
        assert re.fullmatch(r"python:3\.12-slim-bookworm@\$\{PYTHON_DIGEST\}( AS build)?", stage[0][1])


def test_everything_is_locked_and_nothing_is_built_but_filterdb() -> None:
    runs = " ".join(rest for name, rest in BUILD if name == "RUN")
    files = re.findall(r"-r (\S+)", runs)
    assert files and runs.count("--require-hashes --only-binary :all:") == len(files)
    for file in files:
        blocks = re.split(r"\n(?=\S)", (ROOT / file).read_text())
        pinned = [block for block in blocks if "==" in block]
        assert pinned and all("--hash=sha256:" in block for block in pinned), file
    assert "pip uninstall" in next(rest for name, rest in FINAL if name == "RUN")
    assert not any(tool in rest for _, rest in FINAL for tool in ("gcc", "build-essential", "pip install"))


def test_who_runs_and_how() -> None:
    last = dict(FINAL)
    assert last["USER"] == "10001:10001"
    assert last["ENTRYPOINT"] == '["tini", "--", "filterdb-entrypoint"]'
    assert last["HEALTHCHECK"].endswith('CMD ["filterdb-health"]')
    assert {int(port) for port in last["EXPOSE"].split()} == {8786, 8787, 8788}
    assert "filterdb/dask.yaml /etc/dask/filterdb.yaml" in [rest for name, rest in FINAL if name == "COPY"]


def test_the_user_and_the_ports_are_those_of_the_manifests() -> None:
    pods = (manifests.KUBERNETES / "pods" / "pods.yaml").read_text()
    user, group = dict(FINAL)["USER"].split(":")
    assert set(re.findall(r"runAsUser: (\d+)", pods)) == {user}
    assert set(re.findall(r"runAsGroup: (\d+)", pods)) == {group}
    assert f"useradd --uid {user} " in next(rest for name, rest in FINAL if name == "RUN")
    assert set(re.findall(r"containerPort: (\d+)", pods)) == set(dict(FINAL)["EXPOSE"].split())


def test_the_allocator_is_set_as_nannies_set_it() -> None:
    wanted = {
        name: str(value) for name, value in settings.defaults()["distributed"]["nanny"]["pre-spawn-environ"].items()
    }
    assert wanted and wanted.items() <= environment(FINAL).items()


def test_loops_are_compiled_for_the_cpu_that_they_are_looked_up_for() -> None:
    """Numba's key has both variables; the features of the builder's own CPU would make the cache useless elsewhere."""
    for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"):
        assert environment(BUILD)[name] == environment(FINAL)[name]
    assert environment(FINAL)["NUMBA_CPU_NAME"] == "x86-64-v3"
    assert environment(FINAL)["NUMBA_CPU_FEATURES"] == ""
    assert environment(FINAL)["NUMBA_CACHE_DIR"].startswith("/tmp/")
    assert environment(BUILD)["NUMBA_CACHE_DIR"] in (DOCKER / "entrypoint").read_text()


def test_only_what_is_copied_is_sent() -> None:
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text().split("\n")
    sent = [line[1:] for line in ignored if line.startswith("!")]
    assert "*" in ignored
    for stage in (BUILD, FINAL):
        for name, rest in stage:
            if name == "COPY" and "--from" not in rest:
                for source in [part for part in rest.split() if not part.startswith("--")][:-1]:
                    assert (ROOT / source).exists(), source
                    assert any(Path(source).is_relative_to(file) for file in sent), source


def files_of(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_the_cache_of_the_build_serves_a_cluster_and_is_not_added_to(tmp_path: Path) -> None:
    """The build's own step fills it; through the image's entry point workers then compile nothing."""
    kernels, used = tmp_path / "kernels", tmp_path / "used"
    plain = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    built = plain | environment(BUILD) | {"NUMBA_CACHE_DIR": str(kernels)}
    subprocess.run([sys.executable, DOCKER / "warm_up.py"], env=built, check=True, cwd=tmp_path, timeout=400)
    before = files_of(kernels)
    assert before
    for path in [*kernels.rglob("*"), kernels]:
        path.chmod(0o555 if path.is_dir() else 0o444)

    for i in range(2):
        layers = models.weights(8, 3, i), models.weights(8, 8, 9 + i), models.weights(8, 8, 19 + i, (7, 7))
        models.chain(tmp_path / "models" / f"{i}.onnx", *layers)
    run = plain | environment(FINAL) | {
        "PATH": sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"],
        "HOME": str(tmp_path), "FILTERDB_KERNELS": str(kernels), "NUMBA_CACHE_DIR": str(used),
    }  # fmt: skip
    for command in (["ingest", "db", "models"], ["reduce", "db"], ["reduce", "db", "--raw"]):
        subprocess.run(
            [DOCKER / "entrypoint", "filterdb", *command, "--workers", "1"],
            env=run, cwd=tmp_path, check=True, capture_output=True, timeout=120,
        )  # fmt: skip
    assert files_of(kernels) == before
    copied = files_of(used)
    assert copied.keys() == before.keys()
    # Nothing was written after the last file had been copied, at the start of the first command.
    assert max(copied.values()) < (tmp_path / "db").stat().st_mtime_ns


def test_entrypoint_says_what_it_lacks(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": "/proc/nowhere", "FILTERDB_KERNELS": str(tmp_path)}
    done = subprocess.run([DOCKER / "entrypoint", "true"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 73
    assert "filterdb-entrypoint: /proc/nowhere: expected a place to write" in done.stderr


def test_entrypoint_becomes_the_command(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "used"), "FILTERDB_KERNELS": str(DOCKER)}
    done = subprocess.run([DOCKER / "entrypoint", "sh", "-c", "exit 75"], env=environment, check=False)
    assert done.returncode == 75


def health(port: int | str) -> int:
    environment = {**os.environ, "FILTERDB_HEALTH_PORT": str(port)}
    return subprocess.run(
        [sys.executable, DOCKER / "health.py"], env=environment, check=False, capture_output=True
    ).returncode


def test_health() -> None:
    """Of a real scheduler; of nobody; of a job, which has no page."""
    command = [str(Path(sysconfig.get_path("scripts")) / "dask"), "scheduler", "--host", "127.0.0.1", "--port", "0"]
    scheduler = subprocess.Popen(
        [*command, "--dashboard-address", "127.0.0.1:0"], stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    try:
        assert scheduler.stderr is not None
        port = next(match[1] for line in scheduler.stderr if (match := re.search(r"dashboard at:.*:(\d+)/", line)))
        end = time.monotonic() + 20
        while health(port) and time.monotonic() < end:
            time.sleep(0.2)
        assert health(port) == 0
    finally:
        scheduler.terminate()
        scheduler.communicate()
    assert health(port) == 1
    assert health("") == 0
