"""deploy/slurm on a real Slurm of one node: the batch job, run and queued again; the jobqueue configuration."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import socket
import subprocess
import sysconfig
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask_jobqueue  # noqa: F401 - its defaults are part of Dask's configuration then
import numpy as np
import pytest
import yaml
from distributed.security import Security

import filterdb as fdb
from filterdb import cluster
from filterdb.cluster import settings
from filterdb.models.sandbox import Limits
from tests import models
from tests.deploy import slurm

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
BATCH = DEPLOY / "slurm" / "filterdb.sbatch"
QUEUE: dict[str, Any] = yaml.safe_load((DEPLOY / "slurm" / "jobqueue.yaml").read_text())["jobqueue"]["slurm"]
SMALL = ["--ntasks=3", "--cpus-per-task=1", "--mem-per-cpu=3G", "--time=30"]


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Slurm; what the environment of a user holds who calls sbatch."""
    if why := slurm.missing():
        pytest.skip(why)
    with slurm.running(tmp_path_factory.mktemp("slurm")) as environment:
        programs = sysconfig.get_path("scripts") + os.pathsep + environment["PATH"]
        yield {**environment, "PATH": programs}


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    """Six models of two tasks."""
    rows = ["path,name,task"]
    for i in range(6):
        models.chain(tmp_path / "models" / f"{i}.onnx", models.weights(32, 8, i), models.weights(16, 32, 100 + i))
        rows.append(f"{i}.onnx,model-{i},{'one' if i % 2 else 'other'}")
    path = tmp_path / "models" / "catalog.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


class Job:
    """`deploy/run-batch slurm` in a folder of its own, and the job that it has submitted."""

    def __init__(self, queue: dict[str, str], place: Path, *options: str, **environment: str) -> None:
        self.place, self.log = place, place / "log"
        self.environment = {
            **os.environ,
            **queue,
            "FILTERDB_DATABASE": str(place / "db"),
            "FILTERDB_CATALOG": str(place / "models" / "catalog.csv"),
            "FILTERDB_REPORT": str(place / "report"),
            **environment,
        }
        # Slurm refuses both kinds of memory on one command line.
        small = [option for option in SMALL if not ("--mem" in option and any("--mem=" in other for other in options))]
        self.batch = subprocess.Popen(
            [DEPLOY / "run-batch", "slurm", f"--output={self.log}", *small, *options],
            cwd=place, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self.batch.stdout is not None
        submitted = re.search(r"Submitted batch job (\d+)", self.batch.stdout.readline())
        assert submitted
        self.id = submitted[1]

    def _said(self, *command: str) -> str:
        return subprocess.run(
            command, cwd=self.place, env=self.environment, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    def _field(self, name: str) -> str:
        found = re.search(rf"\b{name}=(\S+)", self._said("scontrol", "show", "job", self.id))
        assert found, name
        return found[1]

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def wait_for(self, text: str, seconds: float = 240) -> None:
        end = time.monotonic() + seconds
        while text not in self.said():
            assert time.monotonic() < end and self._field("JobState") in {"PENDING", "CONFIGURING", "RUNNING"}, (
                self.said()
            )
            time.sleep(0.2)

    def tell(self) -> None:
        """What Slurm does three minutes before the wall time: SIGTERM to the script."""
        self._said("scancel", "--batch", "--signal=TERM", self.id)

    def end(self, seconds: float = 280) -> int:
        """Wait for run-batch; its exit code, which is the job's. A job that is queued again is not at its end."""
        try:
            code = self.batch.wait(seconds)
        except subprocess.TimeoutExpired:
            self.batch.kill()
            raise AssertionError(self._field("JobState"), self.said()) from None
        finally:
            assert self.batch.stdout is not None
            self.batch.stdout.close()
        assert self._field("ExitCode") == f"{code}:0"
        return code

    @property
    def restarts(self) -> int:
        return int(self._field("Restarts"))


def assert_dashboard_answers(log: str) -> None:
    """Check that a job's log has one dashboard, where the tunnel ends that the log names."""
    (line,) = [line for line in log.splitlines() if "ssh" in line]
    tunnel = re.fullmatch(
        r"filterdb\.sbatch: dashboard: (http://127\.0\.0\.1:(\d+)/status), through ssh -N -J (\w+)@(\S+) "
        r"-L (\d+):127\.0\.0\.1:(\d+) (\w+)@(\S+)",
        line,
    )
    assert tunnel, line
    url, port, user, login, local, remote, same_user, node = tunnel.groups()
    assert port == local == remote != "8787" and user == same_user == getpass.getuser()
    assert login == node == socket.gethostname()
    assert set(re.findall(r"dashboard: (http[^\s,]+)", log)) == {url}
    with urllib.request.urlopen(url, timeout=60) as answer:  # what ssh does at the node
        assert answer.status == 200 and b"dask" in answer.read().lower()


def minutes(text: str) -> float:
    hours, rest, seconds = map(int, text.split(":"))
    return 60 * hours + rest + seconds / 60


def test_lifetimes_end_before_the_wall_time() -> None:
    options = dict(zip(QUEUE["worker-extra-args"][::2], QUEUE["worker-extra-args"][1::2], strict=True))
    latest = sum(float(options[name].removesuffix("m")) for name in ("--lifetime", "--lifetime-stagger"))
    assert latest <= minutes(QUEUE["walltime"]) - 5
    script = BATCH.read_text()
    told = int(re.search(r"--signal=B:TERM@(\d+)", script)[1])  # type: ignore[index]
    margin = int(re.search(r"--lifetime \"\$\(\(left - (\d+)\)\)s\"", script)[1])  # type: ignore[index]
    stagger = int(re.search(r"--lifetime-stagger (\d+)s", script)[1])  # type: ignore[index]
    assert told >= margin + stagger and margin > stagger


def test_values_agree() -> None:
    script = BATCH.read_text()
    death = settings.seconds("filterdb.death-timeout")
    assert QUEUE["death-timeout"] == death == float(re.search(r"--death-timeout (\d+)", script)[1])  # type: ignore[index]
    # Beside each thread a model is read in a child of up to 2 GiB (--model-memory).
    reader = Limits().memory // 2**20
    assert f"reader={reader}\n" in script
    assert (
        int(QUEUE["job-mem"].removesuffix("G")) * 1024
        == 1024 * int(QUEUE["memory"].split()[0]) + QUEUE["cores"] * reader
    )


@pytest.mark.slow
def test_batch_job_that_is_stopped_is_queued_again_and_finishes(
    queue: dict[str, str], catalog: Path, tmp_path: Path
) -> None:
    """With --mem for the whole node, and the usual port of a dashboard taken."""
    with socket.socket() as other:
        with contextlib.suppress(OSError):  # taken already
            other.bind(("127.0.0.1", 8787))
            other.listen()
        job = Job(queue, tmp_path, "--mem=16G")
        job.wait_for("filterdb.sbatch: filterdb reduce")
    assert_dashboard_answers(job.said())
    job.tell()
    job.wait_for("queued again")
    assert job.end() == 0, job.said()
    assert job.restarts == 1
    assert not (tmp_path / f"filterdb-{job.id}").exists()  # the key is gone
    assert (tmp_path / "report" / "index.html").exists()
    assert job.said().count("filterdb.sbatch: filterdb ingest") == 2
    last_run = job.said().rpartition(": made ca.crt")[2]
    assert not re.search(r"Traceback|CANCELLED|Terminated|srun: |Error", last_run), last_run
    assert last_run.splitlines()[-1] == f"filterdb.sbatch: done; the page is at {tmp_path}/report/index.html"

    there = fdb.open(tmp_path / "db")
    here = fdb.ingest(tmp_path / "here", catalog=catalog).database
    assert there.dataset.sizes == here.dataset.sizes
    for variable, values in fdb.pca(here, by="task").items():
        np.testing.assert_array_equal(fdb.pca(there, by="task")[variable].values, values.values)


@pytest.mark.slow
def test_exit_code_75_is_the_jobs_where_it_may_not_be_queued_again(
    queue: dict[str, str], catalog: Path, tmp_path: Path
) -> None:
    job = Job(queue, tmp_path, FILTERDB_REQUEUES="0")
    job.wait_for("filterdb.sbatch: filterdb ingest")
    job.tell()
    assert job.end() == 75, job.said()
    assert "submit it again, it resumes" in job.said()
    assert not (tmp_path / f"filterdb-{job.id}").exists()


@pytest.mark.slow
def test_a_failing_command_gives_the_job_its_exit_code(queue: dict[str, str], catalog: Path, tmp_path: Path) -> None:
    job = Job(queue, tmp_path, FILTERDB_CATALOG=str(tmp_path / "none.csv"))
    assert job.end() == 65, job.said()
    assert "filterdb.sbatch: filterdb reduce" not in job.said()
    assert job.said().splitlines()[-1] == "filterdb.sbatch: filterdb ended with exit code 65; its error is above"
    assert job.restarts == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "option, expected",
    [
        ("--ntasks=1", "expected --ntasks of 2 or more"),
        ("--mem-per-cpu=2G", "expected --mem-per-cpu of 3G or more, got 2048M"),
        ("--mem=9000M", "expected --mem of 9216M or more for 3 tasks on a node, got 9000M"),
        ("--time=4", "expected --time of more than 5 minutes"),
    ],
)
def test_too_little_is_told_in_one_line(queue: dict[str, str], tmp_path: Path, option: str, expected: str) -> None:
    job = Job(queue, tmp_path, option)
    assert job.end(60) == 2
    lines = [line for line in job.said().splitlines() if line.startswith("filterdb.sbatch:")]
    assert len(lines) == 1 and expected in lines[0]
    assert not (tmp_path / f"filterdb-{job.id}").exists()


@pytest.mark.slow
@pytest.mark.parametrize("lacking", ["FILTERDB_CATALOG", "FILTERDB_DEPLOY"])
def test_sbatch_where_something_is_missing(queue: dict[str, str], tmp_path: Path, lacking: str) -> None:
    """Called directly, in a folder that is not the repository's root."""
    names = {"FILTERDB_DATABASE", "FILTERDB_CATALOG", "FILTERDB_REPORT", "FILTERDB_DEPLOY"} - {lacking}
    done = subprocess.run(
        ["sbatch", "--wait", f"--output={tmp_path / 'log'}", *SMALL, BATCH],
        env={**os.environ, **queue, **dict.fromkeys(names, str(DEPLOY))}, cwd=tmp_path, capture_output=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 1 and (lacking if lacking == "FILTERDB_CATALOG" else "make-tls") in lines[0]


@pytest.mark.parametrize(
    ("environment", "share", "threads", "limit"),
    [
        ({"SLURM_MEM_PER_CPU": "4096", "SLURM_CPUS_PER_TASK": "2"}, 4096, 2, 4096),
        ({"SLURM_MEM_PER_CPU": "2048", "SLURM_CPUS_PER_TASK": "2"}, 2048, 1, 2048),
        ({"SLURM_MEM_PER_NODE": "16384", "SLURM_CPUS_PER_TASK": "2", "SLURM_TASKS_PER_NODE": "5"}, 1638, 1, 1228),
        ({"SLURM_MEM_PER_NODE": "65536", "SLURM_CPUS_PER_TASK": "2", "SLURM_TASKS_PER_NODE": "3(x2),5"}, 6553, 2, 9011),
        ({"SLURM_MEM_PER_NODE": "32768", "SLURM_CPUS_PER_TASK": "2", "SLURM_TASKS_PER_NODE": "10,2"}, 1638, 1, 1228),
        ({"SLURM_MEM_PER_NODE": "0", "SLURM_CPUS_PER_TASK": "2", "SLURM_TASKS_PER_NODE": "5"}, 6400, 2, 8704),
        ({"SLURM_CPUS_PER_TASK": "1", "SLURM_TASKS_PER_NODE": "5"}, 12800, 1, 10752),
    ],
)
def test_memory_of_a_task(environment: dict[str, str], share: int, threads: int, limit: int) -> None:
    """The script's own lines about memory, with what Slurm 22.05 puts into the environment and into a job's record."""
    script = BATCH.read_text()
    lines = script[script.index("cpus=${SLURM") : script.index("unset SLURM_MEM_PER_NODE")]
    record = "   ReqTRES=cpu=6,mem=1M,node=1\n   TRES=cpu=6,mem=62.50G,node=1,billing=6"
    functions = f'say() {{ :; }}\nwrong() {{ echo "$@"; exit 2; }}\nscontrol() {{ echo "{record}"; }}'
    report = 'echo "$((memory / cpus)) $threads $((memory - threads * reader))"'
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{functions}\n{lines}\n{report}"],
        env={"PATH": os.environ["PATH"], "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1", **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == [str(share), str(threads), str(limit)], done
    assert '--mem-per-cpu="$((memory / cpus))M"' in script
    assert '--nthreads "$threads" --memory-limit "$((memory - threads * reader))MiB"' in script


@pytest.mark.slow
def test_jobqueue(queue: dict[str, str], catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers, each a job of Slurm, as jobqueue.yaml describes them; TLS; a pass."""
    for name, value in queue.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    subprocess.run([DEPLOY / "make-tls", tmp_path / "tls"], check=True, capture_output=True)
    ca, certificate, key = (str(tmp_path / "tls" / name) for name in ("ca.crt", "tls.crt", "tls.key"))
    pairs = {f"tls_{role}_{part}": file for role in ("scheduler", "worker", "client")
             for part, file in (("cert", certificate), ("key", key))}  # fmt: skip
    security = Security(require_encryption=True, tls_ca_file=ca, **pairs)
    with (
        dask.config.set({f"jobqueue.slurm.{name}": value for name, value in QUEUE.items()}),
        cluster.connect("slurm", workers=2, security=security) as client,
    ):
        client.wait_for_workers(2, timeout=240)
        jobs = subprocess.run(["squeue", "-h", "-o", "%j %C %m"], capture_output=True, text=True, check=True).stdout
        assert jobs.splitlines() == ["filterdb-worker 2 8G"] * 2
        workers = client.scheduler_info(n_workers=-1)["workers"]
        assert all(address.startswith("tls://") for address in workers)
        assert {(w["nthreads"], w["memory_limit"]) for w in workers.values()} == {(2, 4 * 2**30)}
        assert set(client.run(os.getenv, "MALLOC_ARENA_MAX").values()) == {"2"}
        with client.as_current():
            db = fdb.ingest(tmp_path / "db", catalog=catalog).database
            there = fdb.pca(db, by="task")
        prefixes = client.cluster.scheduler.task_prefixes
        assert any(name.startswith("scan") for name in prefixes), list(prefixes)
    here = fdb.pca(fdb.ingest(tmp_path / "here", catalog=catalog).database, by="task")
    for variable, values in here.items():
        np.testing.assert_array_equal(there[variable].values, values.values)
    assert list((tmp_path / "filterdb-logs").glob("filterdb-worker-*.err"))
