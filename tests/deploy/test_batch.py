"""The scripts that talk to a cluster, whole, with the real kubectl against a server that answers as Kubernetes does."""

from __future__ import annotations

import base64
import re
import shutil
import stat
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from tests.deploy.api_server import Api
from tests.deploy.manifests import KUBERNETES, Resource, kubectl, kustomize
from tests.deploy.played import PENDING, Played, State, ended, gone, runner
from tests.deploy.test_scripts import DEPLOY, DIGEST, call

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

Serve = Callable[[Api], dict[str, str]]
OTHER = DIGEST.replace("0123", "3210")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, str]]:
    """Make the data of a Secret whose certificate holds for some days."""

    def make(days: int) -> dict[str, str]:
        folder = tmp_path_factory.mktemp("made") / "tls"
        assert call(DEPLOY / "make-tls", folder, DAYS=str(days)).returncode == 0
        return {path.name: base64.b64encode(path.read_bytes()).decode() for path in folder.iterdir()}

    return make


@pytest.fixture(scope="module")
def valid(certificates: Callable[[int], dict[str, str]]) -> dict[str, str]:
    return certificates(365)


def script(name: str, environment: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    """Run a script; return its exit code, stdout and stderr."""
    path = f"{kubectl().parent}:/usr/bin:/bin"
    done = call(DEPLOY / name, *arguments, path=path, **{"IMAGE": DIGEST} | environment)
    return done.returncode, done.stdout, done.stderr


def cluster(tls: dict[str, str] | None, **runs: list[list[State]]) -> Api:
    """An API of a namespace that has the Secrets, with these runs of jobs to come."""
    api = Api(logs={"runner": "a line of the runner\n"})
    Played(api, {name: list(each) for name, each in runs.items()})
    api.put("secrets", "filterdb-s3")
    if tls is not None:
        api.put("secrets", "filterdb-tls", data=tls)
    return api


def running(api: Api, job: str, image: str = DIGEST) -> None:
    """A DaskJob that somebody has started."""
    api.put(
        "daskjobs", f"filterdb-{job}", spec={"job": {"spec": {"containers": [{"image": image}]}}},
        metadata={"labels": {"app.kubernetes.io/name": "filterdb"}},
    )  # fmt: skip
    api.on_create("daskjobs", f"filterdb-{job}")


def created(api: Api, plural: str) -> list[str]:
    """What was created of a kind, in order."""
    return [name for made, name in api.created if made == plural]


RERUNS = [
    ([75, 0], 0),
    *(
        pytest.param(*case, marks=pytest.mark.soak)
        for case in (([0], 0), ([75] * 9, 75), ([65], 65), ([74], 74), ([137, 0], 0))
    ),
]
"""Exit codes of one run after the other, and the script's."""


@pytest.mark.parametrize(("codes", "expected"), RERUNS)
def test_run_batch_runs_again_what_was_stopped(
    codes: list[int], expected: int, serve: Serve, valid: dict[str, str]
) -> None:
    api = cluster(valid, reduce=[[runner("Failed" if c else "Succeeded", wait=0, exit_code=c)] for c in codes])
    code, out, errors = script("run-batch", serve(api) | {"RERUNS": "1"}, "kind", "reduce")
    assert code == expected, errors
    count = 2 if codes[0] in {75, 137} else 1
    assert created(api, "daskjobs") == ["filterdb-reduce"] * count
    assert out.count("a line of the runner\n") == count
    assert (("daskjobs", "filterdb-reduce") in api.objects) is (expected != 0)  # kept for kubectl describe
    assert not created(api, "daskclusters") and not created(api, "cronjobs")


@pytest.mark.soak
def test_run_batch_runs_the_jobs_in_order(serve: Serve, valid: dict[str, str]) -> None:
    api = cluster(valid, ingest=[ended(0)], reduce=[ended(75), ended(0)], report=[ended(2)])
    code, _, errors = script("run-batch", serve(api), "kind")
    assert code == 2, errors
    jobs = created(api, "daskjobs")
    assert jobs == [f"filterdb-{job}" for job in ("ingest", "reduce", "reduce", "report")]
    assert [one for one, after in pairwise(jobs) if one == after] == ["filterdb-reduce"]


def test_a_job_whose_runner_has_gone_is_started_again(serve: Serve) -> None:
    """It was waited for without end, and its cluster ran on. The certificates are made when there are none."""
    api = cluster(None, reduce=[[gone], ended(0)])
    running(api, "reduce")
    gone(api, "filterdb-reduce")
    code, _, errors = script("run-batch", serve(api), "kind", "reduce")
    assert code == 0, errors
    assert "its runner has gone (status ClusterCreated); deleting it and applying it again" in errors
    assert created(api, "daskjobs") == ["filterdb-reduce"]
    assert not [name for _, name in api.objects if name.startswith("filterdb-reduce")]  # nothing stays behind
    assert created(api, "secrets") == ["filterdb-tls"]


def test_a_job_that_runs_is_followed_and_another_image_is_told(serve: Serve, valid: dict[str, str]) -> None:
    api = cluster(valid, reduce=[ended(0)])
    running(api, "reduce", OTHER)
    PENDING(api, "filterdb-reduce")
    code, _, errors = script("run-batch", serve(api), "kind", "reduce")
    assert code == 0, errors
    assert f"daskjob/filterdb-reduce runs with the image {OTHER}, not with {DIGEST}" in errors
    assert not created(api, "daskjobs")


def test_without_the_keys_of_the_server_no_job_starts(serve: Serve, valid: dict[str, str]) -> None:
    api = cluster(valid)
    api.delete("secrets", "filterdb-s3")
    code, _, errors = script("run-batch", serve(api), "kind")
    assert code == 2 and "expected the Secret filterdb-s3" in errors
    assert not created(api, "daskjobs")


def test_run_batch_without_the_operator_or_a_namespace(serve: Serve) -> None:
    api = cluster(None)
    api.without_operator = True
    environment = serve(api)
    code, _, errors = script("run-batch", environment, "kind")
    assert code == 2
    assert errors.splitlines()[-1].startswith(
        "run-batch: expected the Dask operator in the cluster, its kinds are missing"
    )
    code, _, errors = script("install", environment, "--namespace", "nowhere", "kind")
    assert code == 74
    assert "deploy/prepare-cluster --namespace nowhere" in errors.splitlines()[-1]


BAD_SECRETS = {
    "it ends today": "expected certificates valid for another day, these end",
    "another CA": "expected tls.crt to be signed by ca.crt, it is not",
    "no certificate": "expected a certificate in tls.crt, got none",
}


@pytest.mark.parametrize("fault", BAD_SECRETS)
def test_certificates_that_cannot_do_are_found_before_a_pod_starts(
    fault: str, serve: Serve, valid: dict[str, str], certificates: Callable[[int], dict[str, str]]
) -> None:
    data = dict(valid)
    if fault == "it ends today":
        data = certificates(1)
    elif fault == "another CA":
        data["ca.crt"] = certificates(365)["ca.crt"]
    else:
        del data["tls.crt"]
    api = cluster(data)
    code, _, errors = script("run-batch", serve(api), "kind")
    assert code == 2, errors
    assert errors.splitlines()[-1].startswith(f"run-batch: Secret filterdb-tls: {BAD_SECRETS[fault]}")
    assert "deploy/renew-tls --namespace filterdb" in errors
    assert not created(api, "daskjobs")


def test_install_in_another_namespace(serve: Serve, valid: dict[str, str]) -> None:
    """With the CronJob, without the interactive cluster; what runs with another image is told."""
    api = cluster(valid)
    api.namespace = "team-a"  # the server refuses every other
    running_image = {"scheduler": {"spec": {"containers": [{"image": OTHER}]}}}
    api.put("daskclusters", "filterdb", spec=running_image)
    running_job = {"labels": {"app.kubernetes.io/name": "filterdb"}}
    api.put(
        "daskjobs", "filterdb-report", spec={"job": {"spec": {"containers": [{"image": DIGEST}]}}}, metadata=running_job
    )
    own = {"COMPONENTS": "openshift", "OPERATOR_NAMESPACE": "dask"}
    code, _, errors = script("install", serve(api) | own, "--namespace", "team-a", "kind")
    assert code == 0, errors
    assert created(api, "cronjobs") == ["filterdb-ingest-new"] and not created(api, "daskclusters")
    assert f"daskcluster/filterdb runs with the image {OTHER}, not with {DIGEST}" in errors
    assert "filterdb-report" not in errors
    pod = api.objects["cronjobs", "filterdb-ingest-new"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert "runAsUser" not in pod["securityContext"]
    assert {container["image"] for container in pod["containers"]} == {DIGEST}
    policy = api.objects["networkpolicies", "operator"]["spec"]["ingress"][0]["from"][0]
    assert policy["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "dask"}


def test_prepare_cluster_names_the_team_and_the_operator(tmp_path: Path) -> None:
    """The server of these tests has nothing outside a namespace: kustomize builds what the script would apply."""
    environment = {"OPERATOR_NAMESPACE": "dask", "NAMESPACE": "team-a"}
    _, out, _ = script("prepare-cluster", environment, "--dry-run")
    texts = re.findall(r"(?:^#   .*\n)+", out, re.MULTILINE)
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    names: dict[str, Resource] = {}
    for text in texts:
        (tmp_path / "kustomization.yaml").write_text(text.replace("#   ", ""))
        names |= {one["kind"]: one for one in kustomize(tmp_path)}
    assert names["Namespace"]["metadata"]["name"] == "team-a"
    assert names["ClusterRoleBinding"]["subjects"][0]["name"] == "system:serviceaccounts:dask"


def test_renew_tls_makes_new_certificates_and_restarts_the_cluster(serve: Serve, valid: dict[str, str]) -> None:
    api = cluster(valid)
    api.put("daskclusters", "filterdb")
    ready = {"replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1, "observedGeneration": 9}
    api.put(
        "deployments", "filterdb-scheduler", spec={"replicas": 1, "selector": {}, "template": {}}, status=ready,
        metadata={"labels": {"dask.org/cluster-name": "filterdb"}, "generation": 1},
    )  # fmt: skip
    code, _, errors = script("renew-tls", serve(api))
    assert code == 0, errors
    assert api.objects["secrets", "filterdb-tls"]["data"]["tls.crt"] != valid["tls.crt"]
    template = api.objects["deployments", "filterdb-scheduler"]["spec"]["template"]
    assert "kubectl.kubernetes.io/restartedAt" in template["metadata"]["annotations"]


@pytest.mark.soak
def test_cert_manager_makes_the_certificates(serve: Serve, valid: dict[str, str]) -> None:
    """Those of the scripts would not fit those that it makes later; without it the wait has an end."""
    api, tls = cluster(None), {"annotations": {"cert-manager.io/certificate-name": "filterdb-tls"}}
    environment = serve(api) | {"COMPONENTS": "cert-manager", "CERT_MANAGER_TIMEOUT": "1"}
    code, _, errors = script("install", environment, "kind")
    assert code == 74 and "expected cert-manager to make the Secret filterdb-tls in time" in errors
    assert not created(api, "secrets")

    api.delete("certificates", "filterdb-tls")

    def issue(plural: str, name: str) -> None:
        if (plural, name) == ("certificates", "filterdb-tls"):
            api.put("secrets", name, data=valid, metadata=tls)

    api.on_create = issue
    code, _, errors = script("install", environment, "kind")
    assert code == 0, errors

    def later(plural: str, name: str) -> bool:
        threading.Timer(0.5, lambda: api.put(plural, name, data=valid, metadata=tls)).start()
        return True

    api.on_delete = later
    code, _, errors = script("renew-tls", environment | {"CERT_MANAGER_TIMEOUT": "20"})
    assert code == 0, errors
    assert not created(api, "secrets")


def test_renew_tls_leaves_a_running_job_alone(serve: Serve, valid: dict[str, str]) -> None:
    api = cluster(valid, reduce=[[]])
    running(api, "reduce")
    code, _, errors = script("renew-tls", serve(api))
    assert code == 2 and "filterdb-reduce runs with the old certificates" in errors
    assert api.objects["secrets", "filterdb-tls"]["data"] == valid


def test_open_session_starts_the_cluster_and_writes_the_client_s_files(
    serve: Serve, valid: dict[str, str], tmp_path: Path
) -> None:
    api = cluster(valid)
    ready = {"replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1, "observedGeneration": 9}
    api.put("deployments", "filterdb-scheduler", spec={"replicas": 1}, status=ready, metadata={"generation": 1})
    folder = tmp_path / "client" / "tls"
    _, out, errors = script("open-session", serve(api) | {"TLS_DIR": str(folder), "PORT": "9786"}, "kind")
    assert created(api, "daskclusters") == ["filterdb"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (folder / "tls.key").read_bytes() == base64.b64decode(valid["tls.key"])
    assert stat.S_IMODE((folder / "tls.key").stat().st_mode) == 0o600
    assert "port-forward --address 127.0.0.1 service/filterdb-scheduler 9786:8786 8787:8787" in errors
    compile(out[out.index("import filterdb") :], "printed", "exec")


def test_open_session_names_the_operator_that_does_nothing(serve: Serve, valid: dict[str, str]) -> None:
    api = cluster(valid)
    api.put("daskclusters", "filterdb", spec={"scheduler": {"spec": {"containers": [{"image": OTHER}]}}})
    code, _, errors = script("open-session", serve(api) | {"OPERATOR_TIMEOUT": "1"}, "kind")
    assert code == 74
    assert "expected the scheduler's Deployment in time, got none (events above); does the Dask operator run?" in errors
    assert f"daskcluster/filterdb runs with the image {OTHER}" in errors
    assert not created(api, "daskclusters")  # it would lose the workers that the autoscaler has given it
