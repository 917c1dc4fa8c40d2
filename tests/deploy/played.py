"""Plays the Dask operator and the kubelet on an `Api`: each run of a job is a list of states of its runner.

The next state comes each time that the runner's pod is asked for; the last one stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.deploy.api_server import Api

State = Callable[[Api, str], None]
"""What changes, given the job's name."""

JOB_ENDS = {"Succeeded": "Successful", "Failed": "Failed"}


@dataclass
class Played:
    """The runs of each job that are still to come."""

    api: Api
    runs: dict[str, list[Sequence[State]]]
    now: dict[str, list[State]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.api.on_create = self._created
        self.api.before_read = self._asked

    def _created(self, plural: str, name: str) -> None:
        if plural == "daskjobs":
            self.now[name] = list(self.runs[name.removeprefix("filterdb-")].pop(0))

    def _asked(self, plural: str, name: str) -> None:
        job = name.removesuffix("-runner")
        if plural == "pods" and ("daskjobs", job) in self.api.objects and self.now.get(job):
            self.now[job].pop(0)(self.api, job)


def nothing(api: Api, job: str) -> None:
    """The operator is scaled to 0, or slow."""


def runner(phase: str, *, wait: int | None = None, exit_code: int | None = None, reason: str = "") -> State:
    """The runner's pod in a phase, with its cluster while it has not ended."""

    def change(api: Api, job: str) -> None:
        name = f"{job}-runner"
        owner = {"ownerReferences": [{"kind": "DaskJob", "uid": api.objects["daskjobs", job]["metadata"]["uid"]}]}
        if ("daskclusters", job) not in api.objects and phase not in JOB_ENDS:
            api.put("daskclusters", job, metadata=owner)
        status: dict[str, object] = {"phase": phase, "reason": reason}
        for kind, container, code in (
            ("initContainerStatuses", "wait", wait),
            ("containerStatuses", "runner", exit_code),
        ):
            if code is not None:
                status[kind] = [{"name": container, "state": {"terminated": {"exitCode": code}}}]
        spec = {"initContainers": [{"name": "wait"}], "containers": [{"name": "runner"}]}
        api.put("pods", name, spec=spec, status=status, metadata=owner)
        api.objects["daskjobs", job]["status"] = {"jobStatus": JOB_ENDS.get(phase, "ClusterCreated")}
        if phase in JOB_ENDS:
            api.delete("daskclusters", job)

    return change


def gone(api: Api, job: str) -> None:
    """The runner's pod was deleted: by hand, or with its node."""
    if ("pods", f"{job}-runner") not in api.objects:
        runner("Pending")(api, job)
    api.delete("pods", f"{job}-runner")


def deleting(api: Api, job: str) -> None:
    """The node is lost: its pods are deleted, and no kubelet confirms that."""
    api.objects["pods", f"{job}-runner"]["metadata"]["deletionTimestamp"] = "2026-11-30T00:00:00Z"
    api.on_delete = lambda plural, name: plural != "pods"


def job_deleted(api: Api, job: str) -> None:
    """Somebody has deleted the DaskJob."""
    api.delete("daskjobs", job)


def over_quota(api: Api, job: str) -> None:
    """No worker can be made."""
    api.event("ReplicaSet", f"{job}-default-worker-1-5d4f", "FailedCreate", "exceeded quota: compute, used: 8Gi")
    api.event("ReplicaSet", "somebody-else", "FailedCreate", "exceeded quota: compute, used: 9Gi")


def then(*states: State) -> State:
    """All of these at once."""

    def change(api: Api, job: str) -> None:
        for state in states:
            state(api, job)

    return change


PENDING, RUNNING = runner("Pending"), runner("Running", wait=0)


def ended(code: int) -> list[State]:
    """A run that ends with an exit code."""
    return [nothing, PENDING, RUNNING, runner("Failed" if code else "Succeeded", wait=0, exit_code=code)]
