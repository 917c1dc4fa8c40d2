"""A real S3 server in a process of its own: SeaweedFS, from PyPI."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KEYS = {
    "AWS_ACCESS_KEY_ID": "admin",
    "AWS_SECRET_ACCESS_KEY": "secretsecret",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def serving(folder: Path, address: str = "127.0.0.1") -> Iterator[str]:
    """Serve S3 at an address of this host out of a folder, which is removed at the end; gives the endpoint."""
    # Each part also opens its gRPC port 10,000 above.
    master, volume, filer, s3, admin = ports = _free_ports(5, address)
    command = [
        str(Path(sysconfig.get_path("scripts")) / "weed"), "mini", f"-dir={folder}", f"-ip={address}",
        f"-ip.bind={address}", "-master.telemetry=false", "-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0",
        "-s3.port.lance=0", "-s3.autoCreateBucket=false", f"-master.port={master}", f"-volume.port={volume}",
        f"-filer.port={filer}", f"-s3.port={s3}", f"-admin.port={admin}",
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    log = (folder / "log").open("wb")
    server = subprocess.Popen(command, env={**os.environ, **KEYS}, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    endpoint = f"http://{address}:{s3}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(endpoint, timeout=1)
            except urllib.error.HTTPError:
                break  # 403: it is up
            except (urllib.error.URLError, OSError):
                assert server.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
        else:
            raise AssertionError(f"no S3 on ports {ports}: {(folder / 'log').read_text()[-2000:]}")
        yield endpoint
    finally:
        server.kill()
        server.wait()
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def _free_ports(count: int, address: str) -> list[int]:
    """Free ports below 50,000 whose neighbours 10,000 above are free as well."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as probe, socket.socket() as other:
            probe.bind((address, 0))
            port = 20_000 + probe.getsockname()[1] % 20_000
            with socket.socket() as wanted:
                try:
                    wanted.bind((address, port))
                    other.bind((address, port + 10_000))
                except OSError:
                    continue
            if all(abs(port - taken) not in {0, 10_000} for taken in found):
                found.append(port)
    return found
