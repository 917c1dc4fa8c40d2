"""The commands of the jobs without operator, run as processes of this machine as Jobs would run them.

The scheduler's and the workers' times are short here: everything else of each command is the manifest's.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import other_user
from tests.deploy.manifests import Process, build, processes
from tests.deploy.test_processes import KEYS, Cluster, Done, Machine, cluster, make_tls, new_machine, only, said, wait

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

IDLE, ALONE = 60, 30
"""Seconds after which the scheduler ends when idle, and a worker without a scheduler."""

SHORT = {"20 minutes": f"{IDLE} s", "300": str(ALONE)}


@pytest.fixture
def machine(s3_server: str, tmp_path: Path) -> Machine:
    tls = make_tls(tmp_path / "certificates")
    return new_machine(s3_server, tls, tmp_path / "machine")


def job(folder: str) -> list[Process]:
    """The processes of a folder, two workers among them, with short times."""
    found = []
    for process in processes(build(folder), [*build("overlays/s3-endpoint"), KEYS]):
        pods = [f"{process.pod}-{n}" for n in range(2)] if process.container == "worker" else [process.pod]
        for pod in pods:
            command = [SHORT.get(word, word.replace(process.pod, pod)) for word in process.command]
            found.append(process._replace(pod=pod, command=command))
    return found


def kill(running: Cluster, pod: str) -> None:
    """Kill every process of a pod, as the end of its container does."""
    os.killpg(running.started[pod].pid, signal.SIGKILL)
    running.started[pod].wait()


def interrupted(running: Cluster, runner: Process, begun: Callable[[], bool]) -> Done:
    """Kill a runner as soon as it has begun."""
    run = running.begin(runner)
    try:
        wait(lambda: begun() or run.poll() is not None, running)
    finally:
        run.kill()
    out, errors = run.communicate(timeout=30)
    return Done(run.returncode, out, errors)


def test_a_job_on_several_nodes(machine: Machine) -> None:
    """A killed runner and a lost scheduler are survived; after the last run everything ends by itself, with code 0."""
    found = job("plain/several-nodes/ingest")
    scheduler, runner = only(found, "scheduler"), only(found, "runner")
    registered = "Register worker addr: tls://"
    with cluster(machine, found) as running:
        assert running.run(only(found, "wait")).code == 0
        clients = said(running, scheduler.pod, "Receive client connection")
        killed = interrupted(
            running, runner, lambda: said(running, scheduler.pod, "Receive client connection") > clients
        )
        assert killed.code == -signal.SIGKILL, killed

        done = running.run(runner)
        assert done.code == 0, f"{done.errors}\n{running.logs()}"
        assert json.loads(done.out)["filters"] == 4_800

        kill(running, scheduler.pod)
        running.start(scheduler)
        wait(lambda: said(running, scheduler.pod, registered) == 4, running)
        assert running.run(only(found, "wait")).code == 0
        again = running.run(runner)
        assert again.code == 0, f"{again.errors}\n{running.logs()}"
        assert json.loads(again.out)["snapshot"] == json.loads(done.out)["snapshot"]

        ended = time.monotonic()
        codes = {pod: started.wait(timeout=IDLE + ALONE + 60) for pod, started in running.started.items()}
        assert codes == {scheduler.pod: 0, **{p.pod: 0 for p in found if p.container == "worker"}}, running.logs()
        assert time.monotonic() - ended < IDLE + ALONE + 60
        assert "after being idle" in running.log(scheduler.pod).read_text()


def test_a_worker_that_never_had_a_scheduler_is_replaced(machine: Machine) -> None:
    """It ends with another code than 0."""
    worker = next(process for process in job("plain/several-nodes/ingest") if process.container == "worker")
    short = worker._replace(command=["5" if word == str(ALONE) else word for word in worker.command])
    with cluster(machine) as running:
        assert running.start(short).wait(timeout=90) == 1, running.logs()


@pytest.fixture
def open_machine(s3_server: str) -> Iterator[Machine]:
    """A machine whose folder other users may enter; its certificates are for the group, as a Secret's volume is."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        machine = new_machine(s3_server, make_tls(folder / "certificates"), folder / "machine")
        (machine.folder / "tls").chmod(0o755)
        for file in (machine.folder / "tls").iterdir():
            file.chmod(0o440)
        yield machine


@pytest.mark.parametrize("folder", ["plain/one-node/ingest", "plain/several-nodes/ingest"])
def test_a_random_user_a_read_only_root_and_no_home(open_machine: Machine, folder: str) -> None:
    """As on OpenShift, where group 0 may read the certificates: a job in one pod, a scheduler and a worker.

    HOME is the folder for temporary files, as the image says: without it Bokeh's import fails for a user without entry.
    """
    if why := other_user.missing():
        pytest.skip(why)
    with cluster(open_machine) as alone:
        temporary = open_machine.folder / "tmp"
        for place in (temporary, Path(alone.values["scratch"])):
            place.mkdir(exist_ok=True)
            place.chmod(0o1777)

        def run(process: Process, *words: tuple[str, str]) -> Done:
            command = [dict(words).get(word, word) for word in alone.command(process)]
            # Nothing comes from the environment around.
            environment: dict[str, Any] = dict.fromkeys(os.environ) | alone.environment(process)
            environment |= dict.fromkeys(("TMPDIR", "HOME"), str(temporary))
            done = other_user.run(
                *command,
                ids=(1_234_567_890, 0),
                only_writable=[temporary, Path(alone.values["scratch"])],
                **environment,
            )
            return Done(done.returncode, done.stdout, done.stderr)

        found = {process.container: process for process in job(folder)}
        if folder.startswith("plain/one-node"):
            done = run(found["runner"], ("4", "2"))
            assert done.code == 0, done.errors
            assert json.loads(done.out)["filters"] == 4_800
        else:
            done = run(found["scheduler"], (f"{IDLE} s", "1 s"))
            assert (done.code, "after being idle" in done.errors) == (0, True), done
            done = run(found["worker"], (str(ALONE), "3"))
            assert (done.code, "Timed out starting worker" in done.errors) == (1, True), done
            assert "Permission denied" not in done.errors and "Read-only" not in done.errors


def test_a_job_in_one_pod(machine: Machine) -> None:
    for name in ("ingest", "reduce"):
        (process,) = processes(build(f"plain/one-node/{name}"), [*build("overlays/s3-endpoint"), KEYS])
        command = ["2" if word == "4" else word for word in process.command]
        with cluster(machine) as alone:
            done = alone.run(process._replace(command=command))
        assert done.code == 0, done.errors
    assert json.loads(done.out)
