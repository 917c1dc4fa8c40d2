"""A scheduler, three workers, a client and an S3 server, each on a host of its own: links are cut, hosts die."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests import seaweed
from tests.models import chain, weights
from tests.multihost import slow
from tests.multihost.hosts import Host, network, refusal

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
WORKERS = ("one", "two", "three")
CHUNK_ROWS = 30
CHUNKS = 160
DATABASE = "s3://tests/db"
LOCAL = "s3://tests/local"
SOUND = "--by task --json"
PAPER = "--mode paper --json"

FAST = {
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "20s",
    "DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT": "60s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "10s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "11s",  # Dask takes no less
}
"""What is lost is lost sooner than where it counts, so that the tests are short."""

CLIENT = [sys.executable, "-m", "tests.multihost.client"]


class Noted(NamedTuple):
    """A line of what workers write down (slow.py)."""

    moment: float
    process: int
    what: str
    chunk: int


class Answers(NamedTuple):
    """Lines of JSON."""

    ingest: str
    drift: str
    reduce: str


@dataclass(frozen=True, slots=True)
class Place:
    """The hosts and what stands on them."""

    hosts: dict[str, Host]
    environment: dict[str, str]
    folder: Path

    @property
    def scheduler(self) -> str:
        return f"tls://{self.hosts['scheduler'].address}:8786"

    def allow(self, more: float, *names: str) -> None:
        """How many chunks these hosts may read from now on (slow.py): while it is bounded, no pass comes to its end."""
        for name in names:
            read = [one.process for one in self.noted(name)]
            new = self.folder / "allowed"
            new.write_text(str(more + (read.count(read[-1]) if read else 0)))
            new.replace(self._allowed(name))

    def start_scheduler(self) -> None:
        command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "8786", "--no-dashboard"]
        self.hosts["scheduler"].start(command, self.environment)

    def start_worker(self, name: str) -> None:
        command = [
            sys.executable, "-m", "distributed.cli.dask_worker", self.scheduler, "--name", name, "--nthreads", "2",
            "--no-dashboard", "--local-directory", str(self.folder / f"scratch-{name}"), "--death-timeout", "60",
        ]  # fmt: skip
        environment = {
            "DASK_DISTRIBUTED__WORKER__PRELOAD": slow.__file__,
            "READS": str(self._reads(name)),
            "ALLOWED": str(self._allowed(name)),
        }
        self.hosts[name].start(command, self.environment | environment, again=True)

    def _allowed(self, name: str) -> Path:
        return self.folder / f"allowed-{name}"

    def _reads(self, name: str) -> Path:
        return self.folder / f"reads-{name}"

    def noted(self, name: str, what: str = "read", since: float = 0.0, until: float = float("inf")) -> list[Noted]:
        """The chunks that a host has asked for, or read, in a span of time."""
        if not self._reads(name).exists():
            return []
        lines = [line.split() for line in self._reads(name).read_text().splitlines()]
        every = [Noted(float(moment), int(process), kind, int(chunk)) for moment, process, kind, chunk in lines]
        return [one for one in every if one.what == what and since < one.moment < until]

    def processes(self, name: str) -> set[int]:
        """Every process of a host that has asked for a chunk so far."""
        return {one.process for one in self.noted(name, "asked")}

    def chunks(self, since: float) -> set[int]:
        """The chunks that have been read."""
        return {one.chunk for name in WORKERS for one in self.noted(name, since=since)}

    def removed(self, host: Host) -> int:
        """How often the scheduler has taken a worker of a host for dead."""
        return self.hosts["scheduler"].log.read_text().count(f"Remove worker addr: tls://{host.address}:")

    def client(self, *arguments: str) -> str:
        return self.hosts["client"].run([*CLIENT, *arguments], self.environment)

    def begin(self, *lines: str) -> subprocess.Popen[str]:
        """Commands of filterdb, one after another; each answers with a line of JSON."""
        return self.hosts["client"].begin([*CLIENT, "filterdb", *lines], self.environment)

    def objects(self) -> tuple[dict[str, str], dict[str, str]]:
        """Digests of everything that does not tell the moment, of the database and of the local one."""
        found, expected = json.loads(self.client("digests", DATABASE, LOCAL))
        return found, expected

    def parts(self) -> list[str]:
        """What a pass that is not complete has kept."""
        return list(json.loads(self.client("parts", DATABASE)))

    def logs(self) -> str:
        """The end of what each host said, for a test that fails."""
        logs = [(host.name, host.log) for host in self.hosts.values() if host.log.exists()]
        return "\n".join(f"--- {name}\n{log.read_text(errors='replace')[-3000:]}" for name, log in logs)

    def until(self, holds: Callable[[], Any], what: str, run: subprocess.Popen[str], seconds: float = 120) -> None:
        """Wait for something that must come while the command still runs."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert run.poll() is None, f"the command ended before {what}: {run.communicate()[1]}\n{self.logs()}"
            assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s\n{self.logs()}"
            time.sleep(0.05)
        assert run.poll() is None, f"the command ended before {what}"


def certificates(folder: Path, hosts: Iterable[Host]) -> dict[str, str]:
    """A CA, a certificate and its key; gives Dask's settings as environment variables."""
    make_tls = [str(ROOT / "deploy/make-tls"), str(folder), *(host.address for host in hosts)]
    subprocess.run(make_tls, check=True, capture_output=True, timeout=60)
    tls = "DASK_DISTRIBUTED__COMM__TLS__"
    found = {"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True", f"{tls}CA_FILE": str(folder / "ca.crt")}
    for part in ("SCHEDULER", "WORKER", "CLIENT"):
        found |= {f"{tls}{part}__CERT": str(folder / "tls.crt"), f"{tls}{part}__KEY": str(folder / "tls.key")}
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The cluster, and a bucket with a list of models."""
    if (why := refusal()) is not None:
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("multihost")
    models(folder / "models")
    with network("store", "scheduler", *WORKERS, "client", folder=folder) as hosts, ExitStack() as stack:
        with hosts["store"].entered():
            endpoint = stack.enter_context(seaweed.serving(folder / "s3", hosts["store"].address))
        environment = {
            **seaweed.KEYS,
            **FAST,
            **certificates(folder / "tls", hosts.values()),
            "AWS_ENDPOINT_URL": endpoint,
            "DASK_CONFIG": str(ROOT / "filterdb/dask.yaml"),
        }
        found = Place(hosts, environment, folder)
        found.start_scheduler()
        for name in WORKERS:
            found.start_worker(name)
        found.client("put", str(folder / "models"), "s3://tests/models")
        yield found


@pytest.fixture(scope="module")
def local(place: Place) -> Answers:
    """What a local run answers, on a database that was made locally; the one to compare is made over the cluster."""
    ingest = f"--catalog s3://tests/models/catalog.csv --chunk-rows {CHUNK_ROWS} --json"
    over_hosts = place.begin(f"ingest {DATABASE} {ingest} --scheduler {place.scheduler}")
    commands = (f"ingest {LOCAL} {ingest}", f"drift {LOCAL} {SOUND}", f"reduce {LOCAL} {PAPER}")
    locally = place.begin(*(f"{command} --threads 2" for command in commands))
    ingested, errors = over_hosts.communicate(timeout=240)
    assert over_hosts.returncode == 0, f"{errors}\n{place.logs()}"
    lines, errors = locally.communicate(timeout=240)
    assert locally.returncode == 0, errors
    answers = Answers(*lines.splitlines())
    assert json.loads(ingested)["filters"] == json.loads(answers.ingest)["filters"] == CHUNKS * CHUNK_ROWS
    return answers


def numbers(answer: str) -> dict[str, Any]:
    """All but which snapshot it is: each test may be run by itself."""
    return {name: value for name, value in json.loads(answer).items() if name != "snapshot"}


def models(folder: Path) -> None:
    """Four models of two tasks, 4,800 filters, and their list."""
    rows = ["path,name,task"]
    for seed, name in enumerate("abcd"):
        chain(folder / f"{name}.onnx", weights(30, 20, seed), weights(20, 30, seed + 10))
        rows.append(f"{name}.onnx,{name},task{seed % 2}")
    (folder / "catalog.csv").write_text("\n".join(rows) + "\n")


def test_an_ingest_over_hosts(place: Place, local: Answers) -> None:
    """Every byte is that of a local run."""
    found, expected = place.objects()
    assert found == {name: expected.get(name) for name in found}
    assert {name for name in expected if name.startswith("segments/")} <= found.keys()
    assert sum("/filters/c/" in name for name in found) == CHUNKS


def test_a_link_cut_and_a_host_killed_in_a_pass(place: Place, local: Answers) -> None:
    """One worker is away until it counts as dead, one for a moment, which then dies for good: nothing of it is seen."""
    one, two = place.hosts["one"], place.hosts["two"]
    place.allow(4, *WORKERS)
    began = time.monotonic()
    run = place.begin(f"drift {DATABASE} {SOUND} --scheduler {place.scheduler}")
    try:
        place.until(
            lambda: all(len(place.noted(name, since=began)) == 4 for name in WORKERS), "every host has read chunks", run
        )
        old = place.processes("one")
        removed = {host.name: place.removed(host) for host in (one, two)}
        one.cut()
        cut = time.monotonic()
        place.allow(math.inf, "one")

        two.cut()
        time.sleep(1)
        two.mend()
        place.allow(4, "two", "three")
        place.until(
            lambda: len(place.noted("two", since=began)) == 8, "the host that was away for a moment reads on", run
        )
        assert place.removed(two) == removed["two"]
        two.kill()
        killed = time.monotonic()

        place.until(lambda: place.removed(one) > removed["one"], "the host whose link is cut counts as dead", run)
        back = time.monotonic()
        one.mend()
        place.until(lambda: place.processes("one") - old, "the host whose link was cut takes part again", run)
        place.allow(math.inf, *WORKERS)
        out, errors = run.communicate(timeout=120)
    finally:
        run.kill()
        place.allow(math.inf, *WORKERS)
    assert run.returncode == 0, f"{errors}\n{place.logs()}"
    assert numbers(out) == numbers(local.drift)
    assert place.noted("one", since=cut + 0.5, until=back) == []
    assert place.noted("two", since=killed) == []
    assert len(place.noted("three", since=cut, until=back)) == 4
    assert {item.process for item in place.noted("one", since=back)} - old
    found, expected = place.objects()
    assert any("/histograms-" in name for name in found)
    assert found == {name: expected.get(name) for name in found}


def test_the_scheduler_s_host_gone_in_a_pass(place: Place, local: Answers) -> None:
    """No packet says so: the client ends with 75 in time, and the next run reads only what is missing."""
    scheduler = place.hosts["scheduler"]
    command = f"reduce {DATABASE} {PAPER} --scheduler {place.scheduler}"
    place.allow(40, *WORKERS)
    began = time.monotonic()
    run = place.begin(command)
    try:
        place.until(lambda: len(place.chunks(since=began)) >= 40, "the pass is on its way", run)
        place.until(lambda: len(place.parts()) >= 2, "parts are kept", run)
        scheduler.cut()
        scheduler.kill()
        gone = time.monotonic()
        _, errors = run.communicate(timeout=90)
        took = time.monotonic() - gone
        kept, old = place.parts(), {name: place.processes(name) for name in WORKERS}
    finally:
        run.kill()
        place.allow(math.inf, *WORKERS)
        scheduler.mend()
        place.start_scheduler()
    assert run.returncode == 75, f"{errors}\n{place.logs()}"
    assert "run again" in errors and "Traceback" not in errors
    assert errors.strip().splitlines()[-1].startswith("filterdb: extremes: "), errors
    assert took < 60
    assert len(kept) >= 2

    again = place.begin(command)
    out, errors = again.communicate(timeout=120)
    assert again.returncode == 0, f"{errors}\n{place.logs()}"
    assert numbers(out) == numbers(local.reduce)
    read = [item for name in WORKERS for item in place.noted(name) if item.process not in old[name]]
    assert CHUNKS <= len(read) <= 2 * CHUNKS - 16 * len(kept)
    assert place.parts() == []
    found, expected = place.objects()
    assert any("/extremes-" in name for name in found)
    assert found == {name: expected.get(name) for name in found}
