"""One way to a client: each place, what it refuses, the settings it brings, the same versions everywhere."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import re
import subprocess
import sys
import sysconfig
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import pytest
import yaml
from distributed import Client, LocalCluster, Scheduler, Worker
from distributed.utils import LoopRunner

import filterdb as fdb
from filterdb import cluster
from filterdb.cluster import Work, fork_server, places, settings, versions
from filterdb.cluster.session import LOCAL_BYTES, REMOTE_BYTES
from filterdb.errors import FilterDBError, InterruptedRunError, MissingExtraError, StoreError, UsageError

pytestmark = pytest.mark.slow

PACKAGE = Path(fdb.__file__).parent
ROLES = ("scheduler", "worker", "client")


@contextmanager
def scheduler(folder: Path, *workers: list[str]) -> Iterator[str]:
    """A scheduler process and workers of it; gives its address."""
    dask_command = str(Path(sysconfig.get_path("scripts")) / "dask")
    file = folder / "scheduler.json"
    place = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    with (folder / "log").open("wb") as log:
        processes = [
            subprocess.Popen([dask_command, "scheduler", *place, "--scheduler-file", file], stdout=log, stderr=log)
        ]
        try:
            for arguments in workers:
                options = ["--scheduler-file", str(file), "--host", "127.0.0.1", "--no-dashboard"]
                command = [dask_command, "worker", *options, *arguments]
                processes.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=folder))
            for _ in range(300):
                if file.exists():
                    break
                with pytest.raises(subprocess.TimeoutExpired):
                    processes[0].wait(0.1)
            yield json.loads(file.read_text())["address"]
        finally:
            for process in reversed(processes):
                process.kill()
                process.wait()


def test_local_has_our_settings_and_a_private_dashboard() -> None:
    with fdb.connect(workers=2) as client:
        assert len(client.scheduler_info()["workers"]) == 2
        assert client.dashboard_link.startswith("http://127.0.0.1:")
        assert all(address.startswith("tls://127.0.0.1:") for address in client.scheduler_info()["workers"])
        found = client.run(os.getenv, "MALLOC_ARENA_MAX")
        assert set(found.values()) == {"2"}
        assert client.run_on_scheduler(_allowed_failures) == 5
        cluster = client.cluster
    assert cluster.status.name == "closed"
    assert _closes_while_another_starts(client)


def _closes_while_another_starts(client: Client) -> bool:
    """Whether a client can be closed, as the garbage collector does, while Dask holds the lock of a start."""
    with LoopRunner._lock:
        thread = threading.Thread(target=client.close)
        thread.start()
        thread.join(timeout=5)
        return not thread.is_alive()


def test_a_command_forks_its_workers() -> None:
    place = cluster.Session(workers=2)
    with cluster.session(place):
        place.start()
        client = Client.current()
        parents = set(client.run(os.getppid).values())
        assert set(client.run(os.getenv, "MALLOC_ARENA_MAX").values()) == {"2"}
    assert len(parents) == 1
    assert os.getpid() not in parents


@pytest.mark.parametrize(
    ("chosen", "work", "starts"),
    [
        ({}, Work(LOCAL_BYTES), False),
        ({}, Work(LOCAL_BYTES + 1), True),
        ({}, Work(REMOTE_BYTES, remote=True), False),
        ({}, Work(REMOTE_BYTES + 1, remote=True), True),
        ({}, None, True),
        ({"workers": 1}, Work(1), True),
        ({"scheduler": "tcp://127.0.0.1:1"}, Work(1), True),
    ],
)
def test_workers_start_only_where_they_pay(
    chosen: dict[str, Any], work: Work | None, starts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StartedError(Exception):
        pass

    def connect(*_: object, **__: object) -> None:
        raise StartedError

    monkeypatch.setattr(places, "connect", connect)
    monkeypatch.setattr(fork_server, "use", lambda: None)
    threads = cluster.task(f"ident-{uuid.uuid4()}", threading.get_ident)
    with cluster.session(cluster.Session(**chosen)):
        if starts:
            with pytest.raises(StartedError):
                cluster.run([threads], "test", work=work)
        else:
            assert cluster.run([threads], "test", work=work) != [threading.get_ident()]
            assert cluster.current_client() is None


@pytest.mark.parametrize("own", ["", "spawn"])
def test_how_workers_start_is_the_users_choice(own: str) -> None:
    code = (
        "import dask; from filterdb import cluster; from filterdb.cluster import fork_server, places\n"
        "def connect(*_, **__): raise SystemExit(dask.config.get(fork_server.SETTING))\n"
        "places.connect = connect; cluster.Session(workers=1).start()"
    )
    environment = {**os.environ, **({"DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": own} if own else {})}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == (own or "forkserver")


@pytest.mark.parametrize("longer", [0, 1])
def test_workers_start_whatever_the_folder_for_temporary_files_is_called(longer: int, tmp_path: Path) -> None:
    """At the longest name of a socket, forks listen there; with a byte more, workers are spawned."""
    bare = tmp_path / "t"
    folder = tmp_path / ("t" * (fork_server.LONGEST_FOLDER + longer - len(str(bare)) + 1))
    folder.mkdir()
    code = (
        "import dask, filterdb as fdb; from filterdb.cluster import fork_server; fork_server.use()\n"
        "if __name__ == '__main__':\n"
        "    with fdb.connect(workers=1) as client: print(client.submit(max, 3, 7).result())\n"
        "    print(dask.config.get(fork_server.SETTING))\n"
    )
    (tmp_path / "script.py").write_text(code)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        env={**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["7", "spawn" if longer else "forkserver"], done.stderr


def _allowed_failures(dask_scheduler: Scheduler) -> int:
    allowed: int = dask_scheduler.allowed_failures
    return allowed


def test_what_the_user_has_set_stays() -> None:
    code = (
        "import dask; dask.config.set({'distributed.scheduler.worker-ttl': '7 s'}); from filterdb.cluster import "
        "settings; settings.apply(); print(dask.config.get('distributed.scheduler.worker-ttl'), "
        "dask.config.get('distributed.scheduler.allowed-failures'))"
    )
    environment = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "9"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["7", "s", "9"]


def _names(tree: dict[str, object], path: str = "") -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _names(value, f"{path}{name}.")
        else:
            yield path + name


def test_dask_knows_every_setting() -> None:
    """A misspelt setting is none."""
    import distributed

    known = yaml.safe_load((Path(distributed.__file__).parent / "distributed.yaml").read_text())
    ours = {name for name in _names(settings.defaults()) if not name.startswith("filterdb.")}
    assert ours
    free = "distributed.nanny.pre-spawn-environ."
    assert {name for name in ours if not name.startswith(free)} <= set(_names(known))


def test_address(tmp_path: Path) -> None:
    with scheduler(tmp_path, ["--nthreads", "1"]) as address, fdb.connect(address) as client:
        client.wait_for_workers(1, timeout=30)
        versions.check_workers(client)
        assert client.submit(sum, [1, 2]).result() == 3
        with pytest.raises(UsageError, match="no number of workers for a running scheduler"):
            fdb.connect(address, workers=2)
        assert client.cluster is None  # it is not ours to end


def test_nobody_there() -> None:
    with pytest.raises(StoreError, match=r"tcp://127.0.0.1:9: expected a Dask scheduler, none answered"):
        fdb.connect("tcp://127.0.0.1:9")
    with pytest.raises(ValueError, match="No clients found"):
        Client.current()


@pytest.mark.parametrize("where", ["nonsense", "http://127.0.0.1:1", "slurmm", "tcp://127.0.0.1:x"])
def test_no_place(where: str) -> None:
    with pytest.raises(UsageError, match=where):
        fdb.connect(where)
    with pytest.raises(ValueError, match="No clients found"):
        Client.current()


def test_missing_extras_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask_kubernetes.operator", None)
    with pytest.raises(MissingExtraError, match=r"filterdb\[kubernetes\]"):
        fdb.connect("kubernetes:filterdb")
    monkeypatch.setitem(sys.modules, "dask_gateway", None)
    with pytest.raises(MissingExtraError, match=r"filterdb\[gateway\]"):
        fdb.connect("gateway:")
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(MissingExtraError, match=r"filterdb\[jobqueue\]"):
        fdb.connect("slurm")


@pytest.mark.parametrize(("where", "program"), [("pbs", "qsub"), ("lsf", "bsub"), ("htcondor", "condor_submit")])
def test_no_queue_here(where: str, program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue whose commands are not there, then one that is not set up: one line, at once."""
    with pytest.raises(UsageError, match=rf"^{where}: expected the program {program} on PATH"):
        fdb.connect(where)
    (tmp_path / program).write_text("#!/bin/sh\n")
    (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with dask.config.set({f"jobqueue.{where}.cores": None}), pytest.raises(StoreError, match=rf"^{where}: .* cluster"):
        fdb.connect(where)


FAKE_QUEUE = {
    "sbatch": 'cp "$1" job.sh; setsid sh job.sh >job.log 2>&1 & echo "Submitted batch job $!"\n',
    "scancel": 'kill -- "-$1"\n',
}


def test_a_queue_without_certificates_gets_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheduler listens on every network: with TLS, by certificates that are there as long as the run is."""
    for name, text in FAKE_QUEUE.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    with (
        dask.config.set({"jobqueue.slurm.cores": 1, "jobqueue.slurm.memory": "1 GiB"}),
        fdb.connect("slurm", workers=1) as client,
    ):
        client.wait_for_workers(1, timeout=120)
        information = client.scheduler_info(n_workers=-1)
        addresses = [information["address"], *information["workers"]]
        assert all(address.startswith("tls://") for address in addresses)
        assert client.submit(sum, [1, 2]).result() == 3
        (folder,) = tmp_path.glob(".filterdb-tls-*")
        assert "BEGIN" not in (tmp_path / "job.sh").read_text()
        assert str(folder) in (tmp_path / "job.sh").read_text()
        assert not list(Path.cwd().glob(".dask-jobqueue*"))
        with pytest.raises(OSError, match=r"imed out|TLS|closed"):
            places.Client(information["address"].replace("tls", "tcp"), timeout=2, set_as_default=False)
    assert not folder.exists()
    assert _closes_while_another_starts(client)


@pytest.mark.parametrize("where", ["tcp://127.0.0.1:9", "tls://127.0.0.1:9", "tcp://127.0.0.1", "tcp://a b:9"])
def test_a_client_that_cannot_start_is_closed(where: str) -> None:
    """If the garbage collector closes an open one while the next client starts, both wait for ever."""
    clients, loops = _open_clients(), _loops()
    with pytest.raises(FilterDBError, match=re.escape(where)):
        fdb.connect(where)
    assert _open_clients() <= clients and _loops() <= loops


def _open_clients() -> set[int]:
    return {id(kept) for kept in gc.get_objects() if isinstance(kept, Client) and kept.status != "closed"}


def _loops() -> set[int | None]:
    return {thread.ident for thread in threading.enumerate() if thread.name == "IO loop"}


def test_a_queue_takes_the_certificates_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    class Queue:
        class job_cls:  # noqa: N801 - dask-jobqueue's name
            submit_command = "true"

        def __init__(self, **options: Any) -> None:
            given.update(options)
            raise OSError("enough")

    monkeypatch.setattr(places, "load_extra", lambda *_: Queue)
    files = {f"{role}.{part}": f"/tls/{part}" for role in ROLES for part in ("cert", "key")} | {"ca-file": "/tls/ca"}
    tls = {f"distributed.comm.tls.{name}": file for name, file in files.items()}
    with dask.config.set(tls), pytest.raises(StoreError, match="enough"):
        fdb.connect("slurm")
    assert given["protocol"] == "tls" and given["security"].tls_worker_key == "/tls/key"


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("tcp://127.0.0.1:9", "any account of this machine"),
        ("tcp://localhost:9", "any account of this machine"),
        ("tcp://[::1]:9", "any account of this machine"),
        ("tcp://192.0.2.1:9", "without authentication or encryption"),
        ("tls://127.0.0.1:9", None),
    ],
)
def test_who_can_reach_a_scheduler_without_tls_is_told(
    where: str, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(places, "CONNECT_SECONDS", 1)
    monkeypatch.setattr(places.log, "warning", lambda text, *arguments: lines.append(text % arguments))
    with pytest.raises((StoreError, UsageError)):
        fdb.connect(where)
    assert len(lines) == (said is not None)
    assert all(str(said) in line and len(line) < 200 for line in lines)


def test_a_worker_preloads_the_log(tmp_path: Path) -> None:
    configuration = {"DASK_CONFIG": str(PACKAGE / "dask.yaml"), "FILTERDB_LOG": "json"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in configuration.items():
            patch.setenv(name, value)
        with scheduler(tmp_path, ["--nthreads", "1"]) as address, fdb.connect(address) as client:
            client.wait_for_workers(1, timeout=30)
            assert set(client.run(_level).values()) == {logging.INFO}
            assert set(client.run(os.getenv, "MALLOC_ARENA_MAX").values()) == {"2"}


def _level(dask_worker: Worker) -> int:
    del dask_worker
    return logging.getLogger("filterdb").level


@pytest.mark.parametrize(("silence", "shown"), [(logging.CRITICAL, False), (logging.WARNING, True)])
def test_a_command_s_workers_report_no_task_that_their_end_cut_off(silence: int, shown: bool) -> None:
    """A command says itself what failed; with --debug, and in a notebook, its workers report it as well."""
    code = (
        "from filterdb.cluster import places\nfrom tests.cluster.test_places import _lose_a_task\n"
        f"if __name__ == '__main__':\n    with places.connect(None, workers=1, silence_logs={silence}) as client:\n"
        "        client.run(_lose_a_task)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ("ConnectionPool is closed" in done.stderr) == shown, done.stderr


async def _lose_a_task() -> None:
    async def failing() -> None:
        raise RuntimeError("ConnectionPool is closed")

    task = asyncio.create_task(failing())
    await asyncio.sleep(0)
    del task
    gc.collect()


def test_death_timeout_is_ours() -> None:
    assert settings.seconds("filterdb.death-timeout") == 300
    with dask.config.set({"filterdb.death-timeout": "10 s"}):
        assert settings.seconds("filterdb.death-timeout") == 10


@pytest.mark.parametrize("where", ["tcp://127.0.0.1:9", None])
def test_a_machine_too_busy_for_dask_is_told(where: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's thread never runs; Dask waits for it for a tenth of a second instead of ten."""

    class Impatient(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            return super().wait(0.1 if timeout == 10 else timeout)

    class Idle(threading.Thread):
        def start(self) -> None:
            pass

    monkeypatch.setattr("distributed.utils._CollectErrorThread", Idle)
    monkeypatch.setattr("distributed.utils.threading.Event", Impatient)
    with pytest.raises(InterruptedRunError, match="too busy, or a lost Dask client"):
        fdb.connect(where, **({} if where else {"workers": 1}))


def test_a_cluster_that_cannot_be_ended_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work is done by then: no exception takes its place."""

    class Lost(LocalCluster):
        def close(self, timeout: float | None = None) -> None:
            raise OSError("the API is gone")

    cluster = Lost(n_workers=0, processes=False, dashboard_address=None, name="lost")
    lines: list[str] = []
    monkeypatch.setattr(places.log, "warning", lambda text, *arguments: lines.append(text % arguments))
    places.Client(cluster).close()
    LocalCluster.close(cluster)
    assert lines == ["lost: could not end this cluster, it may run on: the API is gone"]
