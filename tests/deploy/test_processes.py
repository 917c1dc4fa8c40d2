"""Every manifest's exact commands and environments, run as processes of this machine, against a real S3 server.

`HERE` is all that is put in the place of what only a cluster has; the rest of each environment is the manifest's, and
nothing comes from the one around.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import s3fs

from tests import seaweed
from tests.deploy.manifests import FOLDERS, JOBS, ROOT, Process, Resource, build, processes
from tests.models import chain, weights
from tests.multihost import slow

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

HERE = (
    (r"[a-z-]+-scheduler:8786", "127.0.0.1:{scheduler}"),  # the Service
    (r"^8786$", "{scheduler}"),
    (r"^:8787$", "127.0.0.1:{dashboard}"),
    (r"^:8788$", "127.0.0.1:{page}"),
    (r"^9000:9009$", "{first}:{last}"),
    (r"^9010:9019$", "{first_nanny}:{last_nanny}"),
    (r"/etc/filterdb/tls/", "{tls}/"),
    (r"^/scratch$", "{scratch}"),
    (r"^(https://s3\.SET-ME\.example|http://host\.docker\.internal):8333$", "{endpoint}"),
    (r"s3://(SET-ME|filterdb)/", "s3://{bucket}/"),
)
"""What stands in the words of commands and in values of environments → what stands there on this machine."""

RUN = {"s3-endpoint": ("jobs", JOBS), "kind": ("overlays/kind/jobs", ("ingest", "reduce"))}
"""Overlays whose pods get along with an S3 server and keys: where their jobs are, and those that are run."""

KEYS: Resource = {
    "kind": "Secret",
    "metadata": {"name": "filterdb-s3"},
    "stringData": {name: seaweed.KEYS[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")},
}

SEVERAL = """
import shlex, sys
from filterdb.commands.group import commands
for line in sys.argv[1:]:
    commands.main(shlex.split(line), "filterdb", standalone_mode=False)
"""
LINES = [sys.executable, "-c", SEVERAL]
"""Several commands in one process, each answers with a line of JSON."""

TLS_OPTIONS = {"ca": "ca.crt", "cert": "tls.crt", "key": "tls.key"}

BOUND = 90
"""Seconds after which a run without its scheduler, or a client that is refused, must have ended."""


def manifest(folder: str, overlay: str) -> list[Process]:
    """The processes of a folder, beside the configuration of an overlay and the keys of its user."""
    return processes(build(folder), [*build(f"overlays/{overlay}"), KEYS], workers=2)


def only(found: Iterable[Process], container: str) -> Process:
    (process,) = (process for process in found if process.container == container)
    return process


class Done(NamedTuple):
    """How a process ended."""

    code: int
    out: str
    errors: str


@dataclass(frozen=True, slots=True)
class Machine:
    """What stands for the cluster."""

    folder: Path
    endpoint: str
    bucket: str

    @property
    def image(self) -> dict[str, str]:
        """What the image and not the manifest says: where programs are, where may be written, Dask's settings."""
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "DASK_CONFIG": str(ROOT / "filterdb/dask.yaml"),
        }

    def client(self) -> s3fs.S3FileSystem:
        return s3fs.S3FileSystem(
            key=seaweed.KEYS["AWS_ACCESS_KEY_ID"],
            secret=seaweed.KEYS["AWS_SECRET_ACCESS_KEY"],
            endpoint_url=self.endpoint,
            use_listings_cache=False,
            skip_instance_cache=True,
        )


@dataclass(frozen=True, slots=True)
class Cluster:
    """Processes of one scheduler."""

    machine: Machine
    values: dict[str, str]
    started: dict[str, subprocess.Popen[bytes]]

    def here(self, text: str) -> str:
        for pattern, value in HERE:
            text = re.sub(pattern, value.format(**self.values), text)
        assert not re.search(r"SET-ME|\b878[678]\b|/etc/filterdb|scheduler:", text), text
        return text

    def command(self, process: Process) -> list[str]:
        return [self.here(word) for word in process.command]

    def environment(self, process: Process) -> dict[str, str]:
        return self.machine.image | {name: self.here(value) for name, value in process.environment.items()}

    def start(self, process: Process, more: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Begin a scheduler or worker; its words go to a log."""
        with self.log(process.pod).open("ab") as log:
            self.started[process.pod] = subprocess.Popen(
                self.command(process),
                env={**self.environment(process), **(more or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.machine.folder,
                start_new_session=True,
            )
        return self.started[process.pod]

    def begin(self, process: Process, command: list[str] | None = None, **more: str) -> subprocess.Popen[str]:
        """Begin a job; another command, in its environment, if one is given."""
        return subprocess.Popen(
            command or self.command(process),
            env={**self.environment(process), **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.machine.folder,
        )

    def run(self, process: Process, command: list[str] | None = None, **more: str) -> Done:
        """Run a job to its end."""
        begun = self.begin(process, command, **more)
        try:
            out, errors = begun.communicate(timeout=150)
        finally:
            begun.kill()
        return Done(begun.returncode, out, errors)

    def log(self, pod: str) -> Path:
        return Path(self.values["scratch"]) / f"{pod}.log"

    def logs(self) -> str:
        return "\n".join(f"--- {pod}\n{self.log(pod).read_text(errors='replace')[-3000:]}" for pod in self.started)

    def answer(self, port: str, path: str) -> tuple[int, str]:
        """What a page says."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.values[port]}{path}", timeout=10) as page:
                return page.status, page.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""


def free_ports(count: int) -> list[int]:
    """Consecutive ports that nobody uses at the moment."""
    for _ in range(100):
        with ExitStack() as stack:
            probe = stack.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            first = probe.getsockname()[1] + 1
            with suppress(OSError, OverflowError):
                for port in range(first, first + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
                return list(range(first, first + count))
    raise AssertionError("no free ports")


@contextmanager
def cluster(
    machine: Machine, found: Sequence[Process] = (), workers: int = 2, more: Mapping[str, str] | None = None
) -> Iterator[Cluster]:
    """The scheduler and the workers of a manifest, all there. `more`: environment of the workers."""
    ports = free_ports(24)
    scratch = machine.folder / uuid.uuid4().hex
    scratch.mkdir()
    names = ("scheduler", "dashboard", "page")
    values = {
        **dict(zip(names, map(str, ports), strict=False)),
        **{"first": str(ports[4]), "last": str(ports[13]), "first_nanny": str(ports[14]), "last_nanny": str(ports[23])},
        **{"tls": str(machine.folder / "tls"), "scratch": str(scratch)},
        **{"endpoint": machine.endpoint, "bucket": machine.bucket},
    }
    running = Cluster(machine, values, {})
    try:
        if scheduler := [process for process in found if process.container == "scheduler"]:
            running.start(scheduler[0])
            for process in [process for process in found if process.container == "worker"][:workers]:
                running.start(process, more)
            wait(lambda: said(running, scheduler[0].pod, "Register worker addr: tls://") == workers, running)
        yield running
    finally:
        for started in running.started.values():
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
            started.wait()


def said(running: Cluster, pod: str, what: str) -> int:
    return running.log(pod).read_text().count(what)


def wait(holds: Any, running: Cluster, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, running.logs()
        time.sleep(0.05)


def make_tls(folder: Path) -> Path:
    subprocess.run([str(ROOT / "deploy/make-tls"), str(folder)], check=True, capture_output=True, timeout=60)
    return folder


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tls(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def machine(s3_server: str, tls: Path, tmp_path: Path) -> Machine:
    return new_machine(s3_server, tls, tmp_path)


def new_machine(endpoint: str, tls: Path, folder: Path) -> Machine:
    """With a bucket that has the list of models and the models."""
    shutil.copytree(tls, folder / "tls")
    found = Machine(folder, endpoint, f"deploy-{uuid.uuid4().hex}")
    found.client().mkdir(found.bucket)
    models(found, "abcd")
    return found


def models(machine: Machine, names: str) -> None:
    """Models of two tasks, 1,200 filters each, and their list."""
    folder = machine.folder / "models"
    for name in names:
        chain(folder / f"{name}.onnx", weights(30, 20, ord(name)), weights(20, 30, ord(name) + 10))
    rows = [f"{name}.onnx,{name},task{i % 2}" for i, name in enumerate(names)]
    (folder / "catalog.csv").write_text("\n".join(["path,name,task", *rows]) + "\n")
    machine.client().put(f"{folder}/", f"{machine.bucket}/models/", recursive=True)


QUESTIONS = ("pca {} --by task --json --threads 2", "drift {} --by task --json --threads 2")


@dataclass(frozen=True, slots=True)
class Local:
    """What one process of this machine answers, beside a folder: a line of JSON for each job and each question."""

    answers: dict[str, dict[str, Any]]
    questions: list[str]
    page: Path


@pytest.fixture(scope="module")
def local(s3_server: str, tls: Path, tmp_path_factory: pytest.TempPathFactory) -> Local:
    machine = new_machine(s3_server, tls, tmp_path_factory.mktemp("local"))
    place, page = machine.folder / "db", machine.folder / "page"
    lines = (
        f"ingest {place} --catalog {machine.folder}/models/catalog.csv --json --threads 2",
        f"reduce {place} --json --threads 2",
        f"report {place} -o {page} --json --threads 2",
        *(question.format(place) for question in QUESTIONS),
    )
    with cluster(machine) as alone:
        done = alone.run(Process("local", "local", [*LINES, *lines], {}))
    assert done.code == 0, done.errors
    answers = done.out.splitlines()
    assert json.loads(answers[0])["filters"] == 4_800
    return Local({job: answer(line) for job, line in zip(JOBS, answers, strict=False)}, answers[len(JOBS) :], page)


def answer(line: str) -> dict[str, Any]:
    """All but where the page is."""
    return {name: value for name, value in json.loads(line).items() if name != "page"}


@dataclass(frozen=True, slots=True)
class Chain:
    """The jobs of an overlay, as they ended."""

    machine: Machine
    folder: str
    overlay: str
    done: dict[str, Done]


@pytest.fixture(scope="module", params=["s3-endpoint", pytest.param("kind", marks=pytest.mark.soak)])
def jobs(request: pytest.FixtureRequest, s3_server: str, tls: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """One after the other, each with a cluster of its own, as the operator starts them."""
    overlay, (folder, names) = request.param, RUN[request.param]
    machine = new_machine(s3_server, tls, tmp_path_factory.mktemp(overlay))
    done = {job: run_job(machine, manifest(f"{folder}/{job}", overlay)) for job in names}
    return Chain(machine, folder, overlay, done)


def run_job(machine: Machine, found: list[Process]) -> Done:
    """A DaskJob, as the operator and the kubelet do it."""
    with cluster(machine, found) as running:
        waited = running.run(only(found, "wait"))
        assert waited.code == 0, waited.errors
        done = running.run(only(found, "runner"))
        assert done.code == 0, f"{done.errors}\n{running.logs()}"
        return done


def test_the_numbers_are_those_of_a_local_run(jobs: Chain, local: Local) -> None:
    assert {job: answer(done.out) for job, done in jobs.done.items()} == {job: local.answers[job] for job in jobs.done}
    runner = only(manifest(f"{jobs.folder}/reduce", jobs.overlay), "runner")
    assert ask(jobs.machine, runner) == local.questions


def ask(machine: Machine, runner: Process) -> list[str]:
    """The answers of the bucket's database to all questions."""
    with cluster(machine) as alone:
        database = alone.here(runner.environment["FILTERDB_DATABASE"])
        done = alone.run(runner, [*LINES, *(question.format(database) for question in QUESTIONS)])
    assert done.code == 0, done.errors
    return done.out.splitlines()


@pytest.mark.parametrize("jobs", ["s3-endpoint"], indirect=True)
def test_the_report_is_in_the_bucket(jobs: Chain, local: Local) -> None:
    client, root = jobs.machine.client(), f"{jobs.machine.bucket}/report"
    assert json.loads(jobs.done["report"].out)["page"] == f"s3://{root}/index.html"
    found = {name.removeprefix(f"{root}/"): data for name, data in client.cat(client.find(root)).items()}
    files = (path for path in local.page.rglob("*") if path.is_file())
    expected = {path.relative_to(local.page).as_posix(): path.read_bytes() for path in files}
    assert set(found) == set(expected)
    tables = [name for name in found if name.endswith(".csv")]
    assert len(tables) >= 3
    assert {name: found[name] for name in tables} == {name: expected[name] for name in tables}
    assert found["index.html"].startswith(b"<!doctype html>")
    assert {"figures/basis.svg", "figures/basis.png", "data/layers.js"} <= set(found)


def test_the_cron_job_takes_in_what_is_new(jobs: Chain) -> None:
    models(jobs.machine, "abcde")
    runner = only(manifest(f"overlays/{jobs.overlay}", jobs.overlay), "runner")
    assert runner.pod == "filterdb-ingest-new"
    with cluster(jobs.machine) as alone:
        done = alone.run(runner)
        assert done.code == 0, done.errors
        first = json.loads(done.out)
        assert (first["models"], first["filters"]) == (5, 6_000)
        if jobs.overlay == "s3-endpoint":  # the second night there is nothing new
            done = alone.run(runner)
            assert done.code == 0, done.errors
            second = json.loads(done.out)
            assert (second["models"], second["snapshot"]) == (5, first["snapshot"])


def test_the_scheduler_killed_in_a_pass(machine: Machine, local: Local) -> None:
    """The job ends with 75; the next one, with a scheduler of its own, has the numbers of a local run."""
    found = manifest("jobs/reduce", "s3-endpoint")
    runner = only(found, "runner")
    reads, allowed = machine.folder / "reads", machine.folder / "allowed"
    allowed.write_text("0")
    watched = {
        "DASK_DISTRIBUTED__WORKER__PRELOAD": json.dumps(["filterdb.preload", slow.__file__]),
        "READS": str(reads),
        "ALLOWED": str(allowed),
    }
    with cluster(machine, found, more=watched) as running:
        database, catalog = (running.here(runner.environment[f"FILTERDB_{name}"]) for name in ("DATABASE", "CATALOG"))
        before = running.run(runner, ["filterdb", "ingest", database, "--catalog", catalog, "--threads", "2"])
        assert before.code == 0, before.errors
        run = running.begin(runner)
        try:
            wait(lambda: run.poll() is not None or (reads.exists() and "asked" in reads.read_text()), running)
            assert run.poll() is None, run.communicate()[1]
            running.started["filterdb-reduce-scheduler"].kill()
            killed = time.monotonic()
            _, errors = run.communicate(timeout=BOUND)
        finally:
            run.kill()
    assert run.returncode == 75, errors
    assert errors.strip().splitlines()[-1].startswith("filterdb: histograms: "), errors
    assert "run again" in errors and "Traceback" not in errors
    assert time.monotonic() - killed < BOUND
    assert "read" not in reads.read_text().split()  # it was in the middle of the pass

    assert answer(run_job(machine, found).out) == local.answers["reduce"]
    assert ask(machine, runner) == local.questions


def test_the_interactive_cluster(machine: Machine, tmp_path: Path) -> None:
    """The operator's questions are answered; whoever has no certificate of its CA is not."""
    found = manifest("interactive", "s3-endpoint")
    runner = only(manifest("jobs/reduce", "s3-endpoint"), "runner")
    with cluster(machine, found, workers=1) as running:
        assert running.answer("dashboard", "/health")[0] == 200
        assert running.answer("page", "/health")[0] == 200
        assert running.answer("dashboard", "/api/v1/adaptive_target") == (200, '{"workers": 0}')
        assert running.answer("dashboard", "/api/v1/check_idle")[0] == 200

        database = running.here(runner.environment["FILTERDB_DATABASE"])
        catalog = running.here(runner.environment["FILTERDB_CATALOG"])
        with_tls = running.command(runner)[-2]
        ingest = ["filterdb", "ingest", database, "--catalog", catalog, "--scheduler"]
        plain = with_tls.replace("tls://", "tcp://")
        other = make_tls(tmp_path / "other")
        strangers = {
            "no TLS": ([*ingest, plain], {"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "False"}),
            "no TLS, though asked for": ([*ingest, plain], {}),
            "another CA's certificate": (
                [*ingest, with_tls, *(f"--tls-{name}={other}/{file}" for name, file in TLS_OPTIONS.items())],
                {},
            ),
        }
        for name, (command, environment) in strangers.items():
            began = time.monotonic()
            done = running.run(runner, command, **environment)
            assert time.monotonic() - began < BOUND
            assert done.code in {2, 74}, (name, done)
            assert plain in done.errors or with_tls in done.errors, (name, done)
            assert "Traceback" not in done.errors, (name, done)
        # An emptied prefix itself stays in SeaweedFS' listings for a while.
        assert set(machine.client().find(database)) <= {database.removeprefix("s3://")}

        done = running.run(runner, [*ingest, with_tls])
        assert done.code == 0, f"{done.errors}\n{running.logs()}"


def test_a_job_s_scheduler_has_no_api(machine: Machine) -> None:
    """It is unauthenticated: whoever reaches it may retire workers."""
    with cluster(machine, manifest("jobs/reduce", "s3-endpoint"), workers=0) as running:
        wait(lambda: said(running, "filterdb-reduce-scheduler", "Scheduler at:"), running)
        assert running.answer("dashboard", "/health")[0] == 200
        assert running.answer("dashboard", "/api/v1/adaptive_target")[0] == 404


def test_what_is_not_run_starts_the_same() -> None:
    """Of the folders that are not run above: the same commands, the same environments but for sizes and users."""
    run = {f"overlays/{overlay}" for overlay in RUN} | {"interactive"}
    run |= {f"{folder}/{job}" for folder, jobs in RUN.values() for job in jobs}
    for folder in sorted(set(FOLDERS) - run):
        like = re.sub(r"^overlays/[\w-]+/", "", folder)
        if like == folder:
            like = "overlays/s3-endpoint"
        own = folder if like == "overlays/s3-endpoint" else "overlays/s3-endpoint"
        found, expected = processes(build(folder), build(own), workers=2), manifest(like, "s3-endpoint")
        assert list(map(without_sizes, found)) == list(map(without_sizes, expected))


def without_sizes(process: Process) -> Process:
    """Without what overlays are there to set: limits, where the database is, and who may use it."""
    sizes = {name: process.environment[name] for name in ("CPUS", "MEMORY") if name in process.environment}
    users = {"AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "FILTERDB_ROLE"}
    users |= {"AZURE_STORAGE_ACCOUNT_NAME"}
    places = [process.environment.get(f"FILTERDB_{name}") for name in ("DATABASE", "CATALOG", "REPORT")]
    users |= {f"FILTERDB_{name}" for name in ("DATABASE", "CATALOG", "REPORT")}
    return process._replace(
        command=[
            "a size" if word in sizes.values() else "a place" if word in places else word for word in process.command
        ],
        environment={name: value for name, value in process.environment.items() if name not in users | set(sizes)},
    )
