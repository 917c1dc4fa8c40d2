"""Write deploy/helm/filterdb/templates from the built manifests: `python -m tests.deploy.chart` (`make chart`).

Each resource is taken as `kubectl kustomize` builds it; what a release may set becomes a template expression. A default
in values.yaml that differs from what is built is an error, so chart and manifests cannot drift apart.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import yaml

from tests.deploy.manifests import JOBS, ROOT, Resource, build

CHART = ROOT / "deploy" / "helm" / "filterdb"
TEMPLATES = CHART / "templates"
HEADER = "{{- /* Generated from deploy/kubernetes by `make chart`: change that, not this. */ -}}\n"

WAYS = {
    "operator": ("jobs", "(and .Values.operator.enabled (not .Values.oneNode.enabled))"),
    "several-nodes": ("plain/several-nodes", "(not (or .Values.operator.enabled .Values.oneNode.enabled))"),
    "one-node": ("plain/one-node", ".Values.oneNode.enabled"),
}
"""How a job can run: the folder of its manifests, and when the chart takes them."""

FILES = {
    "ServiceAccount": "accounts",
    "ConfigMap": "configuration",
    "NetworkPolicy": "network",
    "PodDisruptionBudget": "disruption",
    "CronJob": "nightly",
}
"""Where the chart has the kinds of base; a namespace is not a release's to make."""

PARAMETERS = {
    "FILTERDB_DATABASE": "database",
    "FILTERDB_CATALOG": "catalog",
    "FILTERDB_REPORT": "report",
    "AWS_REGION": "region",
}
"""Values of the parameters that every overlay has."""

IDENTITIES = {"aws": "workload-identity", "gcp": "gcs", "azure": "azure"}
"""Clouds whose identities pods may use, and the overlays that have what each needs."""

SIZES = {"cpu": "cpu", "memory": "memory", "ephemeral-storage": "storage"}


class ChartError(Exception):
    """The manifests have something that the chart has no rule for."""


class _Dumper(yaml.SafeDumper):
    """Write YAML with lists indented below their key, and double quotes where some are needed."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        del indentless
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = dumper.resolve(yaml.ScalarNode, text, (True, False)) == "tag:yaml.org,2002:str"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _text)


class Template:
    """The expressions of one template. In the resources a word stands for each until they are written."""

    def __init__(self) -> None:
        self.expressions: list[str] = []

    def value(self, expression: str) -> str:
        """Return the word for an expression that is a value, or a part of one."""
        self.expressions.append(expression)
        return f"VALUE{len(self.expressions) - 1:04}"

    def lines(self, text: str) -> str:
        """Return the word for lines: it stands as a key with the value None in a mapping, or as an item of a list.

        INDENT in them becomes the number of columns that they are indented by, INDENT+2 two more.
        """
        self.expressions.append(text)
        return f"LINES{len(self.expressions) - 1:04}"

    def setting(self, path: str, built: Any) -> str:
        """Return the word for a value that a release may set, whose default is the one that is built."""
        default = default_of(path)
        text = isinstance(built, str)
        if (str(default) if text else default) != built:
            raise ChartError(f"values.yaml: {path}: expected {built!r} as in deploy/kubernetes, got {default!r}")
        return self.value(f"{{{{ .Values.{path} | quote }}}}" if text else f"{{{{ int .Values.{path} }}}}")

    def write(self, resources: Iterable[Resource]) -> str:
        """Return the resources as YAML, with the expressions in it."""
        texts = (yaml.dump(each, Dumper=_Dumper, sort_keys=False, width=1000) for each in resources)
        return "---\n".join(map(self._expanded, texts))

    def _expanded(self, text: str) -> str:
        if "{{" in text:
            raise ChartError("a manifest contains {{, which Helm would take for a template")
        lines = []
        for line in text.splitlines():
            if alone := re.fullmatch(r"( *)(?:- )?LINES(\d{4})(?:: null)?", line):
                indent = alone[1]
                block = self.expressions[int(alone[2])]
                block = block.replace("INDENT+2", str(len(indent) + 2)).replace("INDENT", str(len(indent)))
                lines += [indent + each for each in block.splitlines()]
            else:
                lines.append(re.sub(r"VALUE(\d{4})", lambda word: self.expressions[int(word[1])], line))
        return "\n".join(lines) + "\n"


@cache
def values() -> dict[str, Any]:
    """Return the defaults of values.yaml."""
    content: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    return content


def default_of(path: str) -> Any:
    """Return the default of a value such as "worker.cpu"."""
    place: Any = values()
    for name in path.split("."):
        if name not in place:
            raise ChartError(f"values.yaml: expected a default for {path}")
        place = place[name]
    return place


def _where_set(path: str, text: str) -> str:
    """Return lines that are there only where a value is set; `.` is the value."""
    return f"{{{{- with .Values.{path} }}}}\n{text}\n{{{{- end }}}}"


def _where(condition: str, text: str) -> str:
    """Return lines that are there only under a condition."""
    return f"{{{{- if {condition} }}}}\n{text}\n{{{{- end }}}}"


def _pod(template: Template, spec: Resource, size: str) -> None:
    """Put expressions into a pod's spec. `size`: the value that has the sizes of its containers."""
    stores = False
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        _container(template, container, size)
        if any("secretRef" in source for source in container["envFrom"]):
            stores = True
            mount = "- mountPath: {{ $.Values.volume.path | quote }}\n  name: data"
            container["volumeMounts"].append(template.lines(_where_set("volume.claim", mount)))
    context = spec["securityContext"]
    users = "\n".join(f"{name}: {context.pop(name)}" for name in ("fsGroup", "runAsGroup", "runAsUser"))
    context[template.lines(_where("not .Values.openshift", users))] = None
    for volume in spec["volumes"]:
        if "secret" in volume:
            volume["secret"]["secretName"] = template.setting("tls.secret", volume["secret"]["secretName"])
    if stores:
        claim = "- name: data\n  persistentVolumeClaim:\n    claimName: {{ . | quote }}"
        spec["volumes"].append(template.lines(_where_set("volume.claim", claim)))
    _deadline(template, spec)
    selector = "nodeSelector:\n  {{- toYaml . | nindent INDENT+2 }}"
    spec[template.lines(_where_set("nodeSelector", selector))] = None
    if "tolerations" in spec:
        more = "{{- toYaml . | nindent INDENT }}"
        spec["tolerations"].append(template.lines(_where_set("tolerations", more)))
    else:
        tolerations = "tolerations:\n  {{- toYaml . | nindent INDENT+2 }}"
        spec[template.lines(_where_set("tolerations", tolerations))] = None


def _container(template: Template, container: Resource, size: str) -> None:
    container["image"] = template.value("{{ .Values.image.repository }}@{{ .Values.image.digest }}")
    requests, limits = container["resources"]["requests"], container["resources"]["limits"]
    if requests != limits:
        raise ChartError(f"{container['name']}: expected requests to be the limits, got {requests} and {limits}")
    sizes = {name: template.setting(f"{size}.{SIZES[name]}", limits[name]) for name in limits}
    container["resources"] = {"limits": sizes, "requests": sizes}
    for entry in container.get("env", []):
        if entry["name"] == "MEMORY" and "value" in entry:
            entry["value"] = template.setting(f"{size}.daskMemory", entry["value"])
    for source in container["envFrom"]:
        if "secretRef" in source:
            source["secretRef"]["name"] = template.setting("credentials.secret", source["secretRef"]["name"])
    if size == "oneNode":
        place = container["args"].index("--workers") + 1
        container["args"][place] = template.setting("oneNode.workers", container["args"][place])


def _deadline(template: Template, spec: Resource) -> None:
    if "activeDeadlineSeconds" in spec:
        spec["activeDeadlineSeconds"] = template.setting("deadlineSeconds", spec["activeDeadlineSeconds"])


def _name_of_job(resource: Resource) -> str:
    """Return ingest, reduce or report."""
    names = [job for job in JOBS if re.match(rf"filterdb-{job}(-|$)", resource["metadata"]["name"])]
    if len(names) != 1:
        raise ChartError(f"{resource['metadata']['name']}: expected the name of a job ({', '.join(JOBS)}) in it")
    return names[0]


def _worker_size(job: str) -> str:
    return "ingestWorker" if job == "ingest" else "worker"


def _dask_job(template: Template, resource: Resource) -> None:
    job, cluster = _name_of_job(resource), resource["spec"]["cluster"]["spec"]
    _pod(template, cluster["scheduler"]["spec"], "scheduler")
    _pod(template, cluster["worker"]["spec"], _worker_size(job))
    cluster["worker"]["replicas"] = template.setting(f"workers.{job}", cluster["worker"]["replicas"])
    _pod(template, resource["spec"]["job"]["spec"], "runner")
    _pod_labels(template, resource)  # the operator copies them to its pods


def _pod_labels(template: Template, resource: Resource) -> None:
    labels = resource["metadata"]["labels"]
    for identity, overlay in IDENTITIES.items():
        there, base = (
            _named(build(folder), "CronJob", "filterdb-ingest-new")["spec"]["jobTemplate"]["spec"]["template"]
            for folder in (f"overlays/{overlay}", "base")
        )
        more = {
            name: value for name, value in there["metadata"]["labels"].items() if name not in base["metadata"]["labels"]
        }
        if more:
            text = yaml.dump(more, Dumper=_Dumper).rstrip()
            labels[template.lines(_where(f'eq .Values.identity "{identity}"', text))] = None
    labels[template.lines(_where_set("podLabels", "{{- toYaml . | nindent INDENT }}"))] = None


QUEUE = "kueue.x-k8s.io/queue-name: {{ . | quote }}"


def _job(template: Template, resource: Resource) -> None:
    job, spec, labels = _name_of_job(resource), resource["spec"], resource["metadata"]["labels"]
    role = labels.get("dask.org/component", "one-node")
    sizes = {
        "one-node": "oneNode",
        "scheduler": "scheduler",
        "worker": _worker_size(job),
        "job-runner": "runner",
    }
    _pod(template, spec["template"]["spec"], sizes[role])
    _pod_labels(template, spec["template"])
    _deadline(template, spec)
    for name in ("parallelism", "completions"):
        if name in spec:
            spec[name] = template.setting(f"workers.{job}", spec[name])
    labels[template.lines(_where_set("kueue.queue", QUEUE))] = None
    spec[template.lines(_where(".Values.kueue.queue", "suspend: true"))] = None


def _cron_job(template: Template, resource: Resource) -> None:
    spec, job = resource["spec"], resource["spec"]["jobTemplate"]
    _pod(template, job["spec"]["template"]["spec"], "nightly")
    _pod_labels(template, job["spec"]["template"])
    _deadline(template, job["spec"])
    for name in ("schedule", "timeZone"):
        spec[name] = template.setting(f"nightly.{name}", spec[name])
    if "metadata" in job:
        raise ChartError(f"CronJob {resource['metadata']['name']}: expected no metadata in its jobTemplate")
    labels = f"metadata:\n  labels:\n    {QUEUE}"
    job[template.lines(_where_set("kueue.queue", labels))] = None
    job["spec"][template.lines(_where(".Values.kueue.queue", "suspend: true"))] = None


def _dask_cluster(template: Template, resource: Resource) -> None:
    spec = resource["spec"]
    _pod(template, spec["scheduler"]["spec"], "scheduler")
    _pod(template, spec["worker"]["spec"], "worker")
    _pod_labels(template, resource)
    spec["worker"]["replicas"] = template.setting("interactive.minimum", spec["worker"]["replicas"])
    spec["idleTimeout"] = template.setting("interactive.idleSeconds", spec["idleTimeout"])


def _autoscaler(template: Template, resource: Resource) -> None:
    for name in ("minimum", "maximum"):
        resource["spec"][name] = template.setting(f"interactive.{name}", resource["spec"][name])


def _account(template: Template, resource: Resource) -> None:
    pull = "imagePullSecrets:\n  {{- toYaml . | nindent INDENT+2 }}"
    resource[template.lines(_where_set("imagePullSecrets", pull))] = None
    if resource["metadata"]["name"] == "filterdb":  # the one that may read and write the bucket
        resource["metadata"][template.lines(_annotations())] = None


def _annotations() -> str:
    """Return the lines of the role's annotation, as each cloud calls it, and of a release's own ones."""
    keys = {}
    for identity, overlay in IDENTITIES.items():
        resources = build(f"overlays/{overlay}")
        annotations = _named(resources, "ServiceAccount", "filterdb")["metadata"]["annotations"]
        role = _named(resources, "ConfigMap", "filterdb-job")["data"]["FILTERDB_ROLE"]
        (keys[identity],) = (key for key, value in annotations.items() if value == role)
    names = " ".join(f'"{identity}" "{key}"' for identity, key in keys.items())
    return f"""\
{{{{- $role := dict }}}}
{{{{- if and .Values.identity .Values.role }}}}
{{{{- $role = dict (get (dict {names}) .Values.identity) .Values.role }}}}
{{{{- end }}}}
{{{{- with merge $role .Values.serviceAccount.annotations }}}}
annotations:
  {{{{- toYaml . | nindent INDENT+2 }}}}
{{{{- end }}}}"""


def _configuration(template: Template, resource: Resource) -> None:
    if resource["metadata"]["name"] != "filterdb-job":
        return
    data: dict[str, Any] = resource["data"]
    if set(data) != set(PARAMETERS):
        raise ChartError(
            f"ConfigMap filterdb-job: expected {sorted(PARAMETERS)}, got {sorted(data)}; add it to PARAMETERS"
        )
    for name in data:
        data[name] = template.value(f"{{{{ .Values.{PARAMETERS[name]} | quote }}}}")
    data[template.lines(_where_set("role", "FILTERDB_ROLE: {{ . | quote }}"))] = None
    data[template.lines(_where_set("endpoint", "AWS_ENDPOINT_URL: {{ . | quote }}"))] = None
    more = "{{- range $name, $value := .Values.environment }}\n{{ $name }}: {{ $value | quote }}\n{{- end }}"
    data[template.lines(more)] = None


ENDPOINT_PORT = """\
{{- $none := ternary ":80" "" (hasPrefix "http://" .Values.endpoint) }}
{{- with regexFind ":[0-9]+$" .Values.endpoint | default $none }}
- port: {{ trimPrefix ":" . }}
  protocol: TCP
{{- end }}"""
"""The port of another S3 server; 443 is there anyway."""


def _named(resources: Iterable[Resource], kind: str, name: str) -> Resource:
    (resource,) = (each for each in resources if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return resource


def _added_rules(policy: str, resources: Iterable[Resource]) -> str:
    """Return, as YAML, the rules of a policy's egress that base lacks."""
    there, base = (_named(each, "NetworkPolicy", policy)["spec"]["egress"] for each in (resources, build("base")))
    return yaml.dump([rule for rule in there if rule not in base], Dumper=_Dumper, sort_keys=False).rstrip()


def _network_policy(template: Template, resource: Resource) -> None:
    name, spec = resource["metadata"]["name"], resource["spec"]
    if name == "storage":
        (rule,) = (each for each in spec["egress"] if {"protocol": "TCP", "port": 443} in each["ports"])
        rule["ports"].append(template.lines(ENDPOINT_PORT))
        for identity, overlay in IDENTITIES.items():
            more = _added_rules("storage", build(f"overlays/{overlay}"))
            spec["egress"].append(template.lines(_where(f'eq .Values.identity "{identity}"', more)))
        spec["egress"].append(template.lines(_where_set("egress", "{{- toYaml . | nindent INDENT }}")))
    elif name == "dns":
        more = _added_rules("dns", build("base", components=["components/openshift"]))
        spec["egress"].append(template.lines(_where(".Values.openshift", more)))
    elif name == "operator":
        for peer in (peer for rule in spec["ingress"] for peer in rule["from"]):
            labels = peer["namespaceSelector"]["matchLabels"]
            namespace = labels["kubernetes.io/metadata.name"]
            labels["kubernetes.io/metadata.name"] = template.setting("operator.namespace", namespace)


def _as_it_is(template: Template, resource: Resource) -> None:
    del template, resource


RULES: dict[str, Callable[[Template, Resource], None]] = {
    "DaskJob": _dask_job,
    "DaskCluster": _dask_cluster,
    "DaskAutoscaler": _autoscaler,
    "Job": _job,
    "CronJob": _cron_job,
    "ServiceAccount": _account,
    "ConfigMap": _configuration,
    "NetworkPolicy": _network_policy,
    "PodDisruptionBudget": _as_it_is,
    "Service": _as_it_is,
}
"""What becomes of a resource of each kind, in place."""


def render(resources: Iterable[Resource], condition: str = "") -> str:
    """Return the template of these resources, which are there only under a condition if one is given."""
    template, resources = Template(), list(resources)
    for resource in resources:
        if resource["kind"] not in RULES:
            raise ChartError(f"{resource['kind']} {resource['metadata']['name']}: the chart has no rule for the kind")
        RULES[resource["kind"]](template, resource)
        resource["metadata"]["namespace"] = template.value("{{ .Release.Namespace }}")
    text = template.write(resources)
    return HEADER + (f"{{{{- if {condition} }}}}\n{text}{{{{- end }}}}\n" if condition else text)


def templates() -> dict[str, str]:
    """Return every template of the chart by the name of its file."""
    base: dict[str, list[Resource]] = {}
    for resource in build("base"):
        base.setdefault(_file(resource), []).append(resource)
    files = {
        f"{name}.yaml": render(resources, ".Values.nightly.enabled" if name == "nightly" else "")
        for name, resources in base.items()
    }
    interactive = ".Values.interactive.enabled"
    files["interactive.yaml"] = render(build("interactive"), interactive)
    for job in JOBS:
        for way, (folder, condition) in WAYS.items():
            files[f"{job}-{way}.yaml"] = render(build(f"{folder}/{job}"), f'and (has "{job}" .Values.jobs) {condition}')
    return files


def _file(resource: Resource) -> str:
    if resource["kind"] not in FILES:
        raise ChartError(f"{resource['kind']} {resource['metadata']['name']}: the chart has no file for the kind")
    return FILES[resource["kind"]]


def main() -> int:
    """Write the templates; return the exit code."""
    try:
        files = templates()
    except ChartError as error:
        sys.stderr.write(f"chart: {error}\n")
        return 1
    for path in TEMPLATES.glob("*.yaml"):
        if path.name not in files:
            path.unlink()
    for name, text in files.items():
        (TEMPLATES / name).write_text(text)
    sys.stdout.write(f"{TEMPLATES.relative_to(ROOT)}: {len(files)} templates\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
