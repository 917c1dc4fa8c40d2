"""deploy/'s scripts: shellcheck, --dry-run, what they refuse, and make-tls for real. With kubectl: test_batch.py."""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import subprocess
import sysconfig
from pathlib import Path

import pytest
from distributed import Client
from distributed.deploy.local import LocalCluster
from distributed.security import Security

from filterdb.cluster import places

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
SCRIPTS = ("make-tls", "renew-tls", "prepare-cluster", "install", "run-batch", "open-session", "kind-up")
DIGEST = "registry.example/filterdb@sha256:" + "0123456789abcdef" * 4


def call(*command: str | Path, path: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """A script, with this PATH and IMAGE and the like only if named."""
    own = {"IMAGE", "TLS_DIR", "PORT", "RERUNS", "NAMESPACE", "COMPONENTS", "OPERATOR_NAMESPACE"}
    base = {name: value for name, value in os.environ.items() if name not in own}
    if path is not None:
        base["PATH"] = path
    return subprocess.run(
        command,
        env=base | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


WAITS = {
    r"\bdelete \S": r"--wait=false|--timeout=",
    r"\bwait --for": r"--timeout=",
    r"\brollout status": r"--timeout=",
    r"\bhelm .*--wait": r"--timeout ",
    r"\bkind create": r"--wait \d+m",
    r"\bget --|\blogs --(?!follow)": r"--request-timeout=",
}
"""What waits, and the bound that its line has. A log is followed beside `follow`, whose own waits are tested."""


@pytest.mark.parametrize("script", [*SCRIPTS, "common.sh", "jobs.sh"])
def test_every_wait_has_a_bound(script: str) -> None:
    text = (DEPLOY / script).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    commands = [line for line in lines if "kube[@]" in line or re.search(r"\b(run|kubectl) (helm|kind|kubectl)", line)]
    unbounded = [
        line
        for line in commands
        for wait, bound in WAITS.items()
        if re.search(wait, line) and not re.search(bound, line)
    ]
    assert unbounded == []


@pytest.fixture
def without_tools(tmp_path: Path) -> str:
    """A PATH with what every system has, and none of kubectl, kind, helm, docker, openssl, sbatch."""
    place = tmp_path / "bin"
    place.mkdir()
    for name in ("bash", "env", "dirname", "sed", "grep", "cat", "mktemp", "rm", "cp"):
        (place / name).symlink_to(shutil.which(name) or name)
    return str(place)


def deploy_with_values(tmp_path: Path) -> Path:
    """A copy of deploy/ as a user has it who has filled in the parameters."""
    copy = tmp_path / "deploy"
    shutil.copytree(DEPLOY, copy)
    for file in [file for file in copy.glob("kubernetes/overlays/*/*") if file.is_file()]:
        file.write_text(file.read_text().replace("SET-ME", "mine"))
    return copy


def test_shellcheck() -> None:
    files = [
        *(DEPLOY / name for name in SCRIPTS),
        *DEPLOY.rglob("*.sh"),
        *DEPLOY.rglob("*.sbatch"),
        DEPLOY / "docker/entrypoint",
    ]
    for file in DEPLOY.rglob("*"):
        if file.is_file() and file.read_bytes()[:2] == b"#!" and b"python" not in file.read_bytes().split(b"\n", 1)[0]:
            assert file in files, f"{file}: add it to this test"
            assert os.access(file, os.X_OK) or file.suffix == ".sbatch", file
    shellcheck = Path(sysconfig.get_path("scripts")) / "shellcheck"
    command: list[str | Path] = [shellcheck, "-x", "--source-path=SCRIPTDIR", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_the_scripts_own_head(script: str) -> None:
    done = call(DEPLOY / script, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"{script} [--dry-run]")
    assert "source" not in done.stdout


@pytest.mark.parametrize(
    "command, expected",
    [
        (["run-batch"], "expected an overlay or slurm"),
        (["run-batch", "kind"], "expected IMAGE=registry/filterdb@sha256"),
        (["open-session", "kind"], "expected IMAGE=registry/filterdb@sha256"),
        (["kind-up"], "expected IMAGE=name:tag"),
        (["run-batch", "nowhere"], "expected one of azure gcs kind s3-endpoint volume workload-identity"),
        (["install", "kind"], "expected IMAGE=registry/filterdb@sha256"),
        (["install"], "expected one overlay"),
        (["renew-tls", "kind"], "expected no argument"),
        (["prepare-cluster", "kind"], "expected no argument"),
        (["renew-tls", "--namespace"], "--namespace: expected a name"),
        (["renew-tls", "--namespace", "Team_A"], "--namespace: expected a name in lower case, got Team_A"),
        (["run-batch", "kind", "nothing"], "nothing: expected ingest, reduce or report"),
        (["run-batch", "--quick"], "unknown option --quick"),
        (["run-batch", "--dry-run", "slurm"], "expected FILTERDB_DATABASE"),
        (["make-tls"], "expected a folder"),
    ],
)
def test_wrong_use_is_one_line(command: list[str], expected: str) -> None:
    done = call(DEPLOY / command[0], *command[1:])
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1 and expected in done.stderr


@pytest.mark.parametrize("image", ["filterdb", "registry.example/filterdb:latest"])
def test_an_image_without_a_digest_is_refused(tmp_path: Path, image: str) -> None:
    done = call(deploy_with_values(tmp_path) / "run-batch", "--dry-run", "s3-endpoint", IMAGE=image)
    assert done.returncode == 2
    assert f"got {image}" in done.stderr


@pytest.mark.parametrize("script", ["run-batch", "open-session", "install"])
@pytest.mark.parametrize("overlay", ["workload-identity", "s3-endpoint", "gcs", "azure", "volume"])
def test_parameters_that_nobody_has_set_are_refused(script: str, overlay: str) -> None:
    done = call(DEPLOY / script, "--dry-run", overlay, IMAGE=DIGEST)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "SET-ME" in done.stderr


@pytest.mark.parametrize(
    "command, program",
    [
        (["make-tls", "tls"], "openssl"),
        (["run-batch", "kind"], "kubectl"),
        (["open-session", "kind"], "kubectl"),
        (["renew-tls"], "kubectl"),
        (["kind-up"], "docker"),
        (["run-batch", "slurm"], "sbatch"),
    ],
)
def test_a_missing_program_is_named(command: list[str], program: str, without_tools: str, tmp_path: Path) -> None:
    done = call(DEPLOY / command[0], *command[1:], path=without_tools, IMAGE="filterdb:local", TMPDIR=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == f"{command[0]}: expected the program {program} on PATH; install it\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin"]


DRY = {
    "renew-tls": (
        ["--namespace", "team-a"],
        [
            "kubectl --namespace team-a delete secret filterdb-tls",
            "filterdb-scheduler.team-a.svc",
            "kubectl --namespace team-a create secret generic filterdb-tls",
            "kubectl --namespace team-a rollout restart deployment --selector dask.org/cluster-name=filterdb",
        ],
    ),
    "prepare-cluster": (
        ["--namespace=team-a"],
        [
            "#   namespace: team-a",
            "#   resources: [kubernetes/admin]",
            "#   resources: [kubernetes/admin/namespace]",
        ],
    ),
    "install": (
        ["kind"],
        ["make-tls", "#   resources: [kubernetes/overlays/kind]", "kubectl --namespace filterdb apply --kustomize"],
    ),
    "make-tls": (
        ["new"],
        ["mkdir -p new", "openssl req -x509", "openssl req -newkey", "openssl x509 -req", "mv -f new/.new/ca.crt"],
    ),
    "run-batch": (
        ["s3-endpoint"],
        [
            "make-tls",
            "kubectl --namespace filterdb create secret generic filterdb-tls",
            "#   resources: [kubernetes/overlays/s3-endpoint]",
            "kubectl --namespace filterdb apply --kustomize",
            *(
                line
                for job in ("ingest", "reduce", "report")
                for line in (
                    f"#   resources: [kubernetes/jobs/{job}]",
                    "kubectl --namespace filterdb apply --kustomize",
                    f"kubectl --namespace filterdb logs --follow filterdb-{job}-runner",
                )
            ),
        ],
    ),
    "open-session": (
        ["workload-identity"],
        [
            "#   resources: [kubernetes/overlays/workload-identity]",
            "kubectl --namespace filterdb apply --kustomize",
            "#   resources: [kubernetes/interactive]",
            "kubectl --namespace filterdb apply --kustomize",
            "kubectl --namespace filterdb rollout status --timeout=10m deployment/filterdb-scheduler",
            "port-forward --address 127.0.0.1 service/filterdb-scheduler 8786:8786 8787:8787",
        ],
    ),
    "kind-up": (
        [],
        [
            "kind create cluster --name filterdb",
            "kind load docker-image filterdb:local --name filterdb",
            "helm --kube-context kind-filterdb upgrade dask-operator",
            "--version 2026.3.0",
            "prepare-cluster --namespace filterdb",
        ],
    ),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_dry_run_tells_every_command_and_does_none(script: str, tmp_path: Path, without_tools: str) -> None:
    """With no program there to call, no folder is changed, and the commands stand in order."""
    arguments, expected = DRY[script]
    home = tmp_path / "home"
    home.mkdir()
    copy = deploy_with_values(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    image = "filterdb:local" if script == "kind-up" else DIGEST
    done = call(
        "bash", "-c", 'cd "$1" && shift && "$@"', "-", home, copy / script, "--dry-run", *arguments,
        path=without_tools, IMAGE=image, TMPDIR=str(home), HOME=str(home),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    place = 0
    for text in expected:
        assert text in done.stdout[place:], (text, done.stdout)
        place = done.stdout.index(text, place)
    assert sorted(tmp_path.rglob("*")) == before


def test_components_of_the_user_s_own(tmp_path: Path) -> None:
    """They reach the overlay and every job; what is no component is named."""
    own = tmp_path / "mine"
    own.mkdir()
    (own / "kustomization.yaml").write_text("kind: Component\n")
    script = deploy_with_values(tmp_path) / "run-batch"
    done = call(script, "--dry-run", "s3-endpoint", IMAGE=DIGEST, COMPONENTS=f"openshift {own}")
    assert done.stdout.count("#   components: [kubernetes/components/openshift,component-1]") == 4
    done = call(script, "--dry-run", "s3-endpoint", IMAGE=DIGEST, COMPONENTS="nothing")
    assert done.returncode == 2
    assert "COMPONENTS: nothing: expected one of azure-identity cert-manager" in done.stderr


def test_dry_run_of_slurm() -> None:
    values = {f"FILTERDB_{name}": "/somewhere" for name in ("DATABASE", "CATALOG", "REPORT")}
    done = call(DEPLOY / "run-batch", "--dry-run", "slurm", "--ntasks=9", **values)
    assert done.returncode == 0
    assert done.stdout.split() == ["sbatch", "--wait", "--ntasks=9", str(DEPLOY / "slurm" / "filterdb.sbatch")]


# make-tls, for real


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "tls"
    done = call(DEPLOY / "make-tls", folder, "filterdb-scheduler.filterdb.svc", "127.0.0.1")
    assert done.returncode == 0, done.stderr
    return folder


def test_make_tls_keeps_what_is_valid(tls: Path) -> None:
    assert sorted(path.name for path in tls.iterdir()) == ["ca.crt", "tls.crt", "tls.key"]  # the CA's key is gone
    assert stat.S_IMODE((tls / "tls.key").stat().st_mode) == 0o600
    before = {path.name: path.read_bytes() for path in tls.iterdir()}
    for hosts in ([], ["127.0.0.1"], ["filterdb-scheduler.filterdb.svc", "127.0.0.1"]):
        assert "kept" in call(DEPLOY / "make-tls", tls, *hosts).stdout
        assert {path.name: path.read_bytes() for path in tls.iterdir()} == before


@pytest.mark.parametrize("spoil", ["expiring", "other key", "other ca", "cut", "host"])
def test_make_tls_makes_anew_what_cannot_stay(tls: Path, tmp_path: Path, spoil: str) -> None:
    folder, other = tmp_path / "tls", tmp_path / "other"
    shutil.copytree(tls, folder)
    assert call(DEPLOY / "make-tls", other, DAYS="1" if spoil == "expiring" else "9").returncode == 0
    hosts = []
    if spoil == "expiring":
        shutil.rmtree(folder)
        shutil.copytree(other, folder)
    elif spoil == "other key":
        shutil.copy(other / "tls.key", folder)
    elif spoil == "other ca":
        shutil.copy(other / "ca.crt", folder)
    elif spoil == "cut":
        (folder / "tls.crt").write_bytes(b"")
    else:
        hosts = ["elsewhere.example"]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = call(DEPLOY / "make-tls", folder, *hosts)
    assert done.returncode == 0 and "made ca.crt, tls.crt, tls.key" in done.stdout
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(after) == {"ca.crt", "tls.crt", "tls.key"}
    assert all(after[name] != before[name] for name in after)
    assert "kept" in call(DEPLOY / "make-tls", folder, *hosts).stdout


def security(folder: Path) -> Security:
    return Security(
        require_encryption=True,
        tls_ca_file=str(folder / "ca.crt"),
        **{f"tls_{role}_cert": str(folder / "tls.crt") for role in ("scheduler", "worker", "client")},
        **{f"tls_{role}_key": str(folder / "tls.key") for role in ("scheduler", "worker", "client")},
    )


def test_dask_takes_the_certificates_and_nobody_else(tls: Path, tmp_path: Path) -> None:
    assert call(DEPLOY / "make-tls", tmp_path / "stranger").returncode == 0
    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        protocol="tls",
        security=security(tls),
        dashboard_address=None,
        processes=False,
    ) as cluster:
        address = cluster.scheduler_address
        assert address.startswith("tls://")
        with Client(address, security=security(tls), set_as_default=False) as client:
            assert client.submit(sum, [1, 2]).result(timeout=30) == 3
        host, port = address.removeprefix("tls://").split(":")
        with pytest.raises(OSError), places.Client(f"tcp://{host}:{port}", timeout="3s", set_as_default=False):
            pass
        with (
            pytest.raises(OSError),
            places.Client(address, security=security(tmp_path / "stranger"), timeout="3s", set_as_default=False),
        ):
            pass
        with socket.create_connection((host, int(port)), timeout=5) as plain:  # not a word before the handshake
            plain.settimeout(1)
            with pytest.raises(TimeoutError):
                plain.recv(1)
