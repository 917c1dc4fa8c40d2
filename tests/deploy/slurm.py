"""A real Slurm of one node, made of Debian's slurmctld, slurmd and munge, in a folder and on ports of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A job that is queued again may start once its credential has expired.
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
# No cgroups, no accounting: what a container or a virtual machine may lack.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
MpiDefault=none
ReturnToService=2
KillWait=5
SchedulerParameters=sched_interval=2,batch_sched_delay=0,bf_interval=2
# More than there is: Slurm is to place the jobs, nothing here fills them.
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=64000
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why no Slurm can run here."""
    if os.geteuid() != 0:
        return "slurmd has to be started by root"
    programs = ["slurmctld", "slurmd", "munged", "sbatch", "srun", "scontrol"]
    lacking = [name for name in programs if shutil.which(name, path=_path()) is None]
    return f"{', '.join(lacking)} not installed (Debian: slurmctld slurmd slurm-client munge)" if lacking else None


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


@contextmanager
def running(folder: Path) -> Iterator[dict[str, str]]:
    """Start it; gives the environment that its commands need."""
    host = socket.gethostname().split(".")[0]
    controller, node = _free_ports()
    for part in ("state", "spool", "munge"):
        (folder / part).mkdir(parents=True)
    folder.chmod(0o755)
    (folder / "munge").chmod(0o711)
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    config = folder / "slurm.conf"
    config.write_text(CONFIG.format(host=host, folder=folder, controller=controller, node=node))
    environment = {"SLURM_CONF": str(config), "PATH": _path()}
    with ExitStack() as stack:

        def start(*command: str) -> None:
            log = stack.enter_context((folder / f"{command[0]}.log").open("wb"))
            daemon = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=subprocess.STDOUT)
            stack.callback(_end, daemon)

        munge = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        files = [f"--{option}={folder}/munge/{name}" for option, name in munge.items()]
        # Folders below /tmp may be writable by others, sticky; munged would rather not.
        start("munged", "--foreground", "--force", *files)
        _until((folder / "munge" / "socket").exists, folder)
        start("slurmctld", "-D")
        start("slurmd", "-D")
        _until(lambda: "idle" in _said(["sinfo", "-h", "-o", "%T"], environment), folder)
        yield environment
        _said(["scancel", "--full", "--user=root"], environment)
        _until(lambda: not _said(["squeue", "-h"], environment), folder)


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(20)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _said(command: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    ).stdout.strip()


def _until(done: Callable[[], bool], folder: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not done():
        logs = "".join(f"{path.name}: {path.read_text()[-1500:]}\n" for path in folder.glob("*.log"))
        assert time.monotonic() < end, logs
        time.sleep(0.2)


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]
