"""Wait until a cluster can work: `python -m filterdb.cluster.await_workers`, the first container of a job's pod.

It asks the scheduler at DASK_SCHEDULER_ADDRESS for one worker, for at most `filterdb.start-timeout`.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import dask
from distributed.security import Security

from filterdb import logs
from filterdb.cluster import settings
from filterdb.cluster.places import Client
from filterdb.cluster.starting import innermost_reason, reasons
from filterdb.errors import FilterDBError, StoreError, UsageError

REPORT_SECONDS = 60
"""How often a line says what the wait is for."""

_CERTIFICATE = re.compile("certificate|unknown.?ca", re.IGNORECASE)
"""In the message of a TLS error that no later attempt would be free of; others may be a scheduler that just starts."""

log = logging.getLogger("filterdb.cluster.await_workers")  # also as __main__


def await_workers(address: str, seconds: float) -> None:
    """Return when the scheduler has a worker.

    Parameters
    ----------
    address
        Of the scheduler, "tls://HOST:PORT". Certificates are those in Dask's configuration.
    seconds
        How long to wait at most.

    Raises
    ------
    UsageError
        If a certificate has expired, or one side does not accept the other's.
    StoreError
        If no scheduler answered, or no worker came, in time.
    """
    security = Security()
    _check_own_certificate(security)
    end, report = time.monotonic() + seconds, time.monotonic() + REPORT_SECONDS
    missing = reason = "scheduler"
    while (left := end - time.monotonic()) > 0:
        try:
            with Client(address, security=security, timeout=min(left, REPORT_SECONDS), set_as_default=False) as client:
                missing, reason = "worker", "the scheduler has none"
                client.wait_for_workers(1, timeout=max(1.0, min(end, report) - time.monotonic()))
                return
        except OSError as error:  # TimeoutError too
            refusal = _refusal(error)
            if refusal:
                raise UsageError(
                    f"{address}: the certificate was refused ({refusal}); every part needs the same, valid Secret "
                    "filterdb-tls: deploy/renew-tls makes it and restarts what uses it"
                ) from error
            if missing == "scheduler":
                reason = innermost_reason(error)
        except (ValueError, TypeError) as error:
            raise UsageError(f"{address}: expected tls://HOST:PORT and Dask's TLS settings ({error})") from error
        if time.monotonic() >= report:
            report = time.monotonic() + REPORT_SECONDS
            log.warning("%s: no %s yet (%s), waiting for another %.0f s", address, missing, reason, left)
        time.sleep(min(1.0, max(0.0, end - time.monotonic())))
    raise StoreError(
        f"{address}: no {missing} within {seconds:.0f} s ({reason}); `kubectl get events` tells why pods do not start "
        "(quota, capacity, image)"
    )


def _check_own_certificate(security: Security) -> None:
    """Raise UsageError if this process's certificate is no longer, or not yet, valid."""
    path = security.get_tls_config_for_role("client")["cert"]
    if not path:
        return
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: expected a certificate in PEM, cannot read it ({error})") from error
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not start <= datetime.now(UTC) <= end:
        raise UsageError(
            f"{path}: the certificate is valid from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC, not now; "
            "deploy/renew-tls renews the Secret filterdb-tls"
        )


def _refusal(error: BaseException) -> str:
    """Return what TLS says of a certificate, "" if the error is about something else."""
    return next((message for message in reversed([*reasons(error)]) if _CERTIFICATE.search(message)), "")


def main() -> int:
    """Wait as the environment says; return the exit code."""
    settings.apply()
    logs.setup()
    address = dask.config.get("scheduler-address", None)
    try:
        if address is None:
            raise UsageError("await_workers: expected DASK_SCHEDULER_ADDRESS in the environment")
        await_workers(address, settings.seconds("filterdb.start-timeout"))
    except FilterDBError as error:
        sys.stderr.write(f"filterdb: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
