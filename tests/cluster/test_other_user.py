"""Another account of the machine can run no code in a cluster of ours, and cannot read its certificates."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest
from distributed import Client, LocalCluster, Worker

import filterdb as fdb
from filterdb.cluster import closed
from filterdb.cluster.closed import RunCertificates
from filterdb.private import private_folder
from tests import other_user

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _another_user() -> None:
    if why := other_user.missing():
        pytest.skip(why)


def intrusions(client: Client) -> dict[str, int | str]:
    """What another user gets out of every process of a cluster, asked with and without TLS."""
    information = client.scheduler_info(n_workers=-1)
    workers = information["workers"]
    addresses = [information["address"], *workers, *(worker["nanny"] for worker in workers.values())]
    done = other_user.run(sys.executable, "-m", "tests.cluster.intruder", *addresses)
    assert done.returncode == 0, done.stderr[-2000:]
    results: dict[str, int | str] = json.loads(done.stdout)
    assert len(results) == 2 * len(addresses)
    return results


def test_the_intruder_gets_into_a_cluster_of_dask_itself() -> None:
    """Without this the next test could pass because the intruder cannot speak at all."""
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        results = intrusions(client)
    assert [result for address, result in results.items() if address.startswith("tcp")] == [os.getuid()] * 3


def test_a_local_cluster_runs_nothing_of_others_and_hides_its_key() -> None:
    with fdb.connect(workers=1) as client:
        results = intrusions(client)
        assert not any(isinstance(result, int) for result in results.values()), results
        key = client.security.tls_client_key
        assert key.startswith("-----BEGIN")
        secret = key.splitlines()[3]
        for pid in [*client.run(os.getpid).values(), os.getpid()]:
            assert secret.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
            assert secret.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
        folders = set(client.run(_worker_folder).values())
        for folder in folders:
            assert other_user.run("ls", folder).returncode != 0, folder


def _worker_folder(dask_worker: Worker) -> str:
    return str(dask_worker.local_directory)


def test_a_prepared_folder_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What workers spill is unpickled again, compiled code executed: neither lies where others could have put it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    theirs = tmp_path / f"filterdb-{os.getuid()}"

    def owned_by_another() -> None:
        theirs.mkdir()
        os.chown(theirs, other_user.USER, other_user.USER)

    def open_to_all() -> None:
        theirs.mkdir()
        theirs.chmod(0o777)

    for prepare in (
        owned_by_another,
        open_to_all,
        lambda: theirs.symlink_to(tmp_path),
        theirs.touch,
    ):
        prepare()
        assert private_folder() is None
        assert Path(closed._scratch()).parent == tmp_path and Path(closed._scratch()) != theirs
        theirs.rmdir() if theirs.is_dir() and not theirs.is_symlink() else theirs.unlink()
    folder = private_folder()
    assert folder == theirs and stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_certificates_of_a_queue(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    certificates = RunCertificates(str(tmp_path))
    folder = certificates.folder
    assert folder.parent == tmp_path and stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = list(folder.iterdir())
    assert len(files) == 7 and {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    for place in (folder, *files):
        assert other_user.run("cat", place).returncode != 0
    certificates.remove()
    assert not folder.exists()
