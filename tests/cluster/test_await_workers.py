"""The wait of a job's pod for its cluster: how each of its ends looks, against a real scheduler."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dask
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from distributed import Scheduler, Worker
from distributed.security import Security
from distributed.utils import LoopRunner

from filterdb.cluster import await_workers
from filterdb.cluster.starting import innermost_reason
from filterdb.errors import StoreError, UsageError

NOW = datetime.now(UTC)
YEAR = timedelta(days=365)


class Authority:
    """A CA that signs certificates for any time."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._signed("ca", self.key, NOW - YEAR, NOW + YEAR)

    def _signed(self, name: str, key: ec.EllipticCurvePrivateKey, start: datetime, end: datetime) -> x509.Certificate:
        subject, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (name, "ca"))
        builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number(), start, end)
        builder = builder.add_extension(x509.BasicConstraints(ca=name == "ca", path_length=None), critical=True)
        return builder.sign(self.key, hashes.SHA256())

    def files(self, folder: Path, *, end: datetime = NOW + YEAR) -> dict[str, object]:
        """Write ca.crt, tls.crt and tls.key; return Dask's settings that name them."""
        folder.mkdir()
        key = ec.generate_private_key(ec.SECP256R1())
        pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        (folder / "ca.crt").write_bytes(self.certificate.public_bytes(pem))
        (folder / "tls.crt").write_bytes(self._signed("filterdb", key, NOW - YEAR, end).public_bytes(pem))
        (folder / "tls.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
        roles = {
            f"distributed.comm.tls.{role}.{what}": str(folder / f"tls.{suffix}")
            for role in ("scheduler", "worker", "client")
            for what, suffix in (("cert", "crt"), ("key", "key"))
        }
        return {
            "distributed.comm.tls.ca-file": str(folder / "ca.crt"),
            "distributed.comm.require-encryption": True,
        } | roles


@contextmanager
def scheduler(settings: dict[str, object], workers: int) -> Iterator[str]:
    """Run a scheduler, and perhaps workers, in a thread. LocalCluster would not start with an expired certificate."""
    servers: list[Scheduler | Worker] = []

    async def start() -> None:
        with dask.config.set(settings):
            security = Security(require_encryption=True)
        servers.append(await Scheduler(host="127.0.0.1", protocol="tls", security=security, dashboard=False))
        for _ in range(workers):
            address = servers[0].address
            servers.append(await Worker(address, nthreads=1, host="127.0.0.1", security=security, dashboard=False))

    async def stop() -> None:
        for server in reversed(servers):
            await server.close()

    runner = LoopRunner(asynchronous=False)
    runner.start()
    try:
        runner.run_sync(start)
        yield servers[0].address
        runner.run_sync(stop)
    finally:
        runner.stop()


def test_it_ends_with_the_first_worker(tmp_path: Path) -> None:
    settings = Authority().files(tmp_path / "tls")
    with scheduler(settings, 1) as address, dask.config.set(settings):
        await_workers.await_workers(address, 30)


@pytest.mark.parametrize("fault", ["own expired", "scheduler expired", "another authority"])
def test_certificates_that_cannot_do_end_it_at_once(fault: str, tmp_path: Path) -> None:
    """With exit code 2: waiting longer, or starting again, does not help."""
    authority, past = Authority(), NOW - timedelta(days=1)
    settings = authority.files(tmp_path / "scheduler", end=past if fault == "scheduler expired" else NOW + YEAR)
    other = Authority() if fault == "another authority" else authority
    mine = other.files(tmp_path / "client", end=past if fault == "own expired" else NOW + YEAR)
    begun = time.monotonic()
    with (
        scheduler(settings, 0) as address,
        dask.config.set(mine),
        pytest.raises(UsageError, match=r"certificate (is valid from|was refused).*deploy/renew-tls"),
    ):
        await_workers.await_workers(address, 60)
    assert time.monotonic() - begun < 20


def test_no_worker_ends_it_in_time(tmp_path: Path) -> None:
    settings = Authority().files(tmp_path / "tls")
    with (
        scheduler(settings, 0) as address,
        dask.config.set(settings),
        pytest.raises(StoreError, match=r"no worker within 2 s \(the scheduler has none\)"),
    ):
        await_workers.await_workers(address, 2)


def test_no_scheduler_ends_it_in_time(tmp_path: Path) -> None:
    settings = Authority().files(tmp_path / "tls")
    with dask.config.set(settings), pytest.raises(StoreError, match=r"no scheduler within 2 s .*(refused|Timed out)"):
        await_workers.await_workers("tls://127.0.0.1:9", 2)


@pytest.mark.parametrize("cut_off", [asyncio.CancelledError, TimeoutError])
def test_an_attempt_that_is_cut_off_is_no_reason(cut_off: type[BaseException]) -> None:
    """The last attempt within the time may be cancelled before it is refused."""
    try:
        try:
            raise cut_off
        except cut_off as error:
            raise OSError("Timed out trying to connect to tls://127.0.0.1:9 after 2 s") from error
    except OSError as error:
        assert innermost_reason(error) == "Timed out trying to connect to tls://127.0.0.1:9 after 2 s"


def test_the_command_ends_with_the_error_s_code(capsys: pytest.CaptureFixture[str]) -> None:
    with dask.config.set({"scheduler-address": None}):
        assert await_workers.main() == UsageError.exit_code
    assert capsys.readouterr().err == "filterdb: await_workers: expected DASK_SCHEDULER_ADDRESS in the environment\n"
    with dask.config.set({"scheduler-address": "tls://127.0.0.1:9"}):  # and no certificates
        assert await_workers.main() == UsageError.exit_code
    assert capsys.readouterr().err.count("\n") == 1
    with dask.config.set({"scheduler-address": "tcp://127.0.0.1:9", "filterdb.start-timeout": "1s"}):
        assert await_workers.main() == StoreError.exit_code
    assert capsys.readouterr().err.count("\n") == 1
