"""What run-batch waits for, with the real kubectl against a server that answers as the Kubernetes API does.

Operator and kubelet are played (tests/deploy/played.py): the tests show what the script makes of their states.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.deploy.api_server import Api
from tests.deploy.manifests import kubectl
from tests.deploy.played import (
    PENDING,
    RUNNING,
    Played,
    State,
    deleting,
    ended,
    gone,
    job_deleted,
    nothing,
    over_quota,
    runner,
    then,
)  # fmt: skip
from tests.deploy.test_scripts import DEPLOY, call

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

CALL = """
source {deploy}/common.sh
cluster
source {deploy}/jobs.sh
{function} reduce
echo code=${{code:-0}} force=${{force:-}}
"""


class Done(NamedTuple):
    """How the script ended: its exit code, or the code that `follow` has set."""

    code: int
    out: str
    errors: str


def with_job(*states: State) -> Api:
    """An API with the DaskJob filterdb-reduce, whose runner goes through these states."""
    api = Api(logs={"runner": "a line of the runner\n", "wait": "filterdb: the certificate has expired\n"})
    Played(api, {"reduce": [states]})
    api.put("daskjobs", "filterdb-reduce", spec={})
    api.on_create("daskjobs", "filterdb-reduce")
    return api


def follow(environment: dict[str, str], function: str = "follow") -> Done:
    script = CALL.format(deploy=DEPLOY, function=function)
    path = f"{kubectl().parent}:/usr/bin:/bin"
    done = call("bash", "-c", script, "run-batch", path=path, **environment)
    out, mark, code = done.stdout.partition("code=")
    return Done(int(code.split()[0]) if mark else done.returncode, out + code.partition("force=")[2], done.stderr)


FAULTS: dict[str, tuple[list[State], dict[str, str], int, str]] = {
    "it ends well": (ended(0), {}, 0, "filterdb-reduce: Succeeded"),
    "the log's connection is lost": ([RUNNING] * 3 + ended(0)[-1:], {}, 0, "filterdb-reduce: Succeeded"),
    "it fails": (ended(65), {}, 65, "filterdb-reduce: Failed"),
    "the runner is deleted": ([PENDING, RUNNING, gone], {}, 75, "its runner has gone, with its node or by hand"),
    "the runner is deleted before it is seen": ([gone], {}, 75, "its runner has gone before it was seen"),
    "the operator is scaled to 0": (
        [nothing], {"RUNNER_TIMEOUT": "1"}, 74,
        "no runner within 1 s (events above); expected the Dask operator to make it; kubectl --namespace dask-operator",
    ),
    "a certificate has expired": (
        [PENDING, runner("Failed", wait=2)], {}, 2, "filterdb: the certificate has expired\n",
    ),
    "no worker comes": (
        [then(PENDING, over_quota), PENDING, runner("Failed", wait=74)], {}, 74,
        "event: ReplicaSet/filterdb-reduce-default-worker-1-5d4f: Warning FailedCreate: exceeded quota: compute, used",
    ),
    "wait has a bug": ([PENDING, runner("Failed", wait=1)], {}, 70, "the container wait failed with exit code 1"),
    "wait is killed": ([PENDING, runner("Failed", wait=137)], {}, 75, "could not end by itself"),
    "the runner is evicted": ([RUNNING, runner("Failed", wait=0, reason="Evicted")], {}, 75, "(Evicted)"),
    "the deadline is over": ([RUNNING, runner("Failed", reason="DeadlineExceeded")], {}, 75, "(DeadlineExceeded)"),
    "the node is lost": (
        [RUNNING, then(RUNNING, deleting)], {"GONE_TIMEOUT": "1"}, 75, "the node does not answer",
    ),
    "no node has room": (
        [then(PENDING, over_quota)], {"START_TIMEOUT": "1", "EVENTS_EVERY": "0"}, 74,
        "filterdb-reduce: Pending since 0 s\nevent: ReplicaSet/filterdb-reduce-default-worker-1-5d4f: Warning Failed",
    ),
    "somebody deletes the job": ([nothing, job_deleted], {}, 75, "somebody has deleted the DaskJob"),
}  # fmt: skip
"""What happens: the states, bounds, the code, what is said on stderr."""


LIKE_OTHERS = {"it fails", "wait has a bug", "wait is killed", "the deadline is over", "somebody deletes the job"}


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=[pytest.mark.soak] if fault in LIKE_OTHERS else []) for fault in FAULTS]
)
def test_every_fault_ends_the_wait(fault: str, serve: Callable[[Api], dict[str, str]]) -> None:
    states, bounds, code, said = FAULTS[fault]
    api = with_job(*states)
    done = follow(serve(api) | bounds)
    assert done.code == code, done.errors
    assert said in done.errors
    assert "somebody-else" not in done.errors
    # Nothing runs on behind the script's back: with its runner a job's cluster goes.
    adopted = ("PATCH", "/apis/kubernetes.dask.org/v1/namespaces/filterdb/daskclusters/filterdb-reduce") in api.calls
    if (adopted and ("pods", "filterdb-reduce-runner") not in api.objects) or code == 74:
        assert ("daskclusters", "filterdb-reduce") not in api.objects
    if code not in {0, 65}:
        return
    assert done.out.split("\n") == ["a line of the runner", "", ""]


def test_a_runner_that_does_not_go_is_forced(serve: Callable[[Api], dict[str, str]]) -> None:
    done = follow(serve(with_job(RUNNING, then(RUNNING, deleting))) | {"GONE_TIMEOUT": "1"})
    assert done.out.splitlines()[-1] == "1"


@pytest.mark.parametrize(("failing", "code"), [(3, 0), (99, 74)])
def test_an_api_server_that_is_away_is_asked_again(
    failing: int, code: int, serve: Callable[[Api], dict[str, str]]
) -> None:
    api = with_job(*ended(0))
    api.failing = failing
    done = follow(serve(api))
    assert done.code == code, done.errors
    if code:
        assert "expected an answer, got (after 4 attempts)" in done.errors


@pytest.mark.parametrize("held", [False, True])
def test_a_cluster_that_the_operator_does_not_release(held: bool, serve: Callable[[Api], dict[str, str]]) -> None:
    """It holds every DaskCluster by a finalizer (kopf's timers): without it a deletion never ends."""
    api = with_job(PENDING)
    PENDING(api, "filterdb-reduce")
    api.on_delete = lambda plural, name: not (held and plural == "daskclusters")
    done = follow(serve(api) | {"REMOVE_TIMEOUT": "1"}, "remove")
    assert done.code == (74 if held else 0), done.errors
    assert ("expected it to be deleted within 1 s, it is not; does the Dask operator run?" in done.errors) is held
    assert "--cascade=foreground" in done.errors  # so that its pods go all the same
