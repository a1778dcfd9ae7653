"""`deploy/kubernetes`: valid by the published schemas, and as promised; each check refuses what breaks it.

That base builds to what is read here, and what the overlay and the components make of it, is kustomize's to say (in
kubectl, where that is installed). No cluster is asked: what the API server checks beyond its schemas is not checked.
"""

import copy
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from shared.egress import FORBIDDEN_V4, FORBIDDEN_V6, GLOBAL_UNICAST_V6, parse_ports
from shared.settings import Settings
from tests.running import PROJECT

KUBERNETES = PROJECT / "deploy" / "kubernetes"
VERSIONS = ("1.27", kubernetes_validate.latest_version())
"""The oldest that has all fields in use without a gate, and the newest whose schemas we have."""
LONG_RUNNING = ("api", "worker", "beat")
OURS = (*LONG_RUNNING, "migrate")
NAME, COMPONENT = "app.kubernetes.io/name", "app.kubernetes.io/component"

Document = dict[str, Any]
Documents = dict[tuple[str, str], Document]
Complaints = Iterator[str]


def parsed(text: str) -> list[Document]:
    return list(YAML(typ="safe", pure=True).load_all(text))


def by_name(documents: list[Document]) -> Documents:
    found = {(each["kind"], each["metadata"]["name"]): each for each in documents}
    assert len(found) == len(documents), "two of one name"
    return found


@cache
def _base() -> Documents:
    """Return what base's files hold, with the ConfigMap that its generator makes, but for the hash in its name."""
    (kustomization,) = parsed((KUBERNETES / "base" / "kustomization.yaml").read_text())
    assert kustomization.keys() == {"apiVersion", "kind", "resources", "configMapGenerator"}, (
        "else this says too little"
    )
    documents = [
        each for file in kustomization["resources"] for each in parsed((KUBERNETES / "base" / file).read_text())
    ]
    for each in kustomization["configMapGenerator"]:
        data = dict(literal.split("=", maxsplit=1) for literal in each["literals"])
        documents.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": each["name"]}, "data": data})
    return by_name(documents)


def base() -> Documents:
    return copy.deepcopy(_base())


@cache
def kustomized(folder: Path) -> list[Document]:
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return parsed(done.stdout)


@cache
def compose() -> Document:
    (document,) = parsed((PROJECT / "compose.yaml").read_text())
    found: Document = document["services"]
    return found


def workload(documents: Documents, component: str) -> Document:
    if component == "migrate":
        return next(each for (kind, _), each in documents.items() if kind == "Job")
    return documents["Deployment", f"plugin-registry-{component}"]


def pod(documents: Documents, component: str) -> Document:
    found: Document = workload(documents, component)["spec"]["template"]["spec"]
    return found


def container(documents: Documents, component: str) -> Document:
    found: Document
    (found,) = pod(documents, component)["containers"]
    return found


def labels(documents: Documents, component: str) -> dict[str, str]:
    found: dict[str, str] = workload(documents, component)["spec"]["template"]["metadata"]["labels"]
    return found


def environment(documents: Documents, component: str) -> dict[str, str]:
    found = container(documents, component)
    given: dict[str, str] = {}
    for each in found.get("envFrom", []):
        given |= documents["ConfigMap", each["configMapRef"]["name"]]["data"]
    return given | {each["name"]: each["value"] for each in found["env"]}


def bytes_of(quantity: str) -> int:
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
    return int(quantity[:-2]) * units[quantity[-2:]]


def cores_of(quantity: str) -> float:
    return int(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def selects(selector: Document, found: dict[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    for each in selector.get("matchExpressions", []):
        assert each["operator"] == "In"
    return all(found.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        found.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", [])
    )


# Each check tells what is wrong.


def schemas(documents: Documents) -> Complaints:
    for version in VERSIONS:
        for document in documents.values():
            if wrong := _wrong_by_schema(version, json.dumps(document)):
                yield wrong


@cache
def _wrong_by_schema(version: str, text: str) -> str | None:
    document = json.loads(text)
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{version}, {document['kind']}: {error.message} at {list(error.absolute_path)}"
    return None


def rights(documents: Documents) -> Complaints:
    """What the standard `restricted` asks, and a root that cannot be written to, and no token of the cluster's."""
    for each in OURS:
        found, inside = pod(documents, each), container(documents, each)
        if found.get("securityContext") != {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        }:
            yield f"{each}: who it runs as"
        if inside.get("securityContext") != {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }:
            yield f"{each}: what its container may"
        if found.get("automountServiceAccountToken") is not False or found.get("enableServiceLinks") is not False:
            yield f"{each}: has something of the cluster's"
        if {"hostNetwork", "hostPID", "hostIPC", "initContainers", "serviceAccountName"} & found.keys():
            yield f"{each}: has more than its container"
        if any("hostPort" in port for port in inside.get("ports", [])):
            yield f"{each}: has a port of the node's"
        if each in LONG_RUNNING and found.get("shareProcessNamespace") is not True:
            yield f"{each}: is PID 1, which reaps nothing"


def volumes(documents: Documents) -> Complaints:
    """What can be written to is in memory and bounded; the rest are secrets, for our group alone."""
    for each in OURS:
        found, inside = pod(documents, each), container(documents, each)
        mounted = {mount["name"]: mount for mount in inside["volumeMounts"]}
        if mounted.keys() != {volume["name"] for volume in found["volumes"]}:
            yield f"{each}: volumes and mounts differ"
        for volume in found["volumes"]:
            match volume:
                case {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": limit}}:
                    if bytes_of(limit) > bytes_of(inside["resources"]["limits"]["memory"]) / 4:
                        yield f"{each}: /tmp takes its memory"
                    if mounted["tmp"]["mountPath"] != "/tmp":
                        yield f"{each}: has no /tmp"
                case {"name": name, "secret": {"defaultMode": 0o440}}:
                    if mounted[name] != {"name": name, "mountPath": f"/run/secrets/{name}", "readOnly": True}:
                        yield f"{each}: where {name} is"
                case _:
                    yield f"{each}: {volume['name']}"


SECRETS_OF = {
    "api": {"plugin-registry-store", "plugin-registry-broker"},
    "worker": {"plugin-registry-store", "plugin-registry-broker"},
    "beat": {"plugin-registry-broker"},
    "migrate": {"plugin-registry-owner"},
}


def secrets(documents: Documents) -> Complaints:
    """Each has what it needs and no more, as files; none is in an environment or in here."""
    if any(kind == "Secret" for kind, _ in documents):
        yield "a secret in a file"
    for each in OURS:
        found = {volume["secret"]["secretName"] for volume in pod(documents, each)["volumes"] if "secret" in volume}
        if found != SECRETS_OF[each]:
            yield f"{each}: has {found}"
        folders = {mount["mountPath"] for mount in container(documents, each)["volumeMounts"]}
        for variable, value in environment(documents, each).items():
            if re.search("PASS|SECRET|TOKEN|AUTH|KEY|CRED|_URL|PROXY$", variable) and not variable.endswith("_FILE"):
                yield f"{each}: {variable} in the environment"
            if variable.endswith("_FILE") and str(Path(value).parent) not in folders:
                yield f"{each}: {variable} names a file that is not mounted"
    if any("valueFrom" in each for name in OURS for each in container(documents, name)["env"]):
        yield "an environment from elsewhere"


def settings(documents: Documents) -> Complaints:
    known = {f"REGISTRY_{field.upper()}" for field in Settings.model_fields}
    for each in OURS:
        for variable in environment(documents, each):
            if variable not in known and variable.removesuffix("_FILE") not in known:
                yield f"{each}: {variable} is no setting"
    needed = {"REGISTRY_DATABASE_URL_FILE", "REGISTRY_BROKER_URL_FILE", "REGISTRY_ALIVE_FILE"}
    expected = {
        "api": needed - {"REGISTRY_ALIVE_FILE"},
        "worker": needed,
        "beat": needed - {"REGISTRY_DATABASE_URL_FILE"},
        "migrate": {"REGISTRY_DATABASE_URL_FILE"},
    }
    for each in OURS:
        if {one["name"] for one in container(documents, each)["env"]} != expected[each]:
            yield f"{each}: has not what it needs"
    if "envFrom" in container(documents, "migrate"):
        yield "migrate: settings that change, in a Job that cannot"


def commands(documents: Documents) -> Complaints:
    for each in LONG_RUNNING:
        if container(documents, each)["command"] != compose()[each]["command"]:
            yield f"{each}: not what compose.yaml runs"
    if container(documents, "migrate")["command"] != ["plugin-registry", "migrate", "--grant-to", "registry_serve"]:
        yield "migrate: another command"
    for each in OURS:
        if "args" in container(documents, each):
            yield f"{each}: has arguments besides"
    if len({container(documents, each)["image"] for each in OURS}) != 1:
        yield "different images"


def probes(documents: Documents) -> Complaints:
    def http(path: str) -> Document:
        return {"httpGet": {"path": path, "port": "http"}}

    alive = {"exec": {"command": ["python3", "-m", "shared.alive", "/tmp/alive"]}}
    expected = {
        "api": {
            "startupProbe": http("/healthz"),
            "livenessProbe": http("/healthz"),
            "readinessProbe": http("/readyz"),
        },
        "worker": {"startupProbe": alive, "livenessProbe": alive},
        "beat": {"startupProbe": alive, "livenessProbe": alive},
        "migrate": {},
    }
    for each in OURS:
        found = {key: dict(value) for key, value in container(documents, each).items() if key.endswith("Probe")}
        timing = {
            key: [value.pop(one, 0) for one in ("periodSeconds", "timeoutSeconds", "failureThreshold")]
            for key, value in found.items()
        }
        if found != expected[each]:
            yield f"{each}: what is asked"
        for key, (period_s, timeout_s, failures) in timing.items():
            if not (period_s and timeout_s >= 5 and failures >= 2):
                yield f"{each}: {key} is hasty"
        if found and timing["startupProbe"][0] * timing["startupProbe"][2] < 60:
            yield f"{each}: no time to start"
    alive_file = environment(documents, "worker").get("REGISTRY_ALIVE_FILE")
    if alive_file != "/tmp/alive" or environment(documents, "beat").get("REGISTRY_ALIVE_FILE") != alive_file:
        yield "the sign of life is given elsewhere"


def ends(documents: Documents) -> Complaints:
    """As long as compose.yaml gives, and the pause before in which the api is still routed to."""
    pause_s = {"api": 5, "worker": 0, "beat": 0}
    for each in LONG_RUNNING:
        hook = container(documents, each).get("lifecycle", {})
        if hook != ({"preStop": {"exec": {"command": ["sleep", str(pause_s[each])]}}} if pause_s[each] else {}):
            yield f"{each}: what it does before it is told to stop"
        wanted_s = int(compose()[each]["stop_grace_period"].removesuffix("s")) + pause_s[each]
        if pod(documents, each).get("terminationGracePeriodSeconds") != wanted_s:
            yield f"{each}: not {wanted_s} s to end"


MEASURED_MIB = {"api": 109, "worker": 118, "beat": 68, "migrate": 80}
"""By docs/performance.md: what each has resident at its usual work; of migrate, on an empty store, by itself."""


def resources(documents: Documents) -> Complaints:
    for each in OURS:
        given = container(documents, each).get("resources", {})
        if given.keys() != {"requests", "limits"} or any(set(v) != {"cpu", "memory"} for v in given.values()):
            yield f"{each}: requests and limits of both"
            continue
        requested, limit = (bytes_of(given[one]["memory"]) / 2**20 for one in ("requests", "limits"))
        if not MEASURED_MIB[each] < requested < limit < 8 * MEASURED_MIB[each]:
            yield f"{each}: memory is not what was measured"
        if not cores_of(given["requests"]["cpu"]) < cores_of(given["limits"]["cpu"]):
            yield f"{each}: processors"
    if (
        bytes_of(container(documents, "api")["resources"]["limits"]["memory"])
        < 109 * 2**20 + Settings().max_unread_bytes
    ):
        yield "api: may not hold what it says it holds"


def rollouts(documents: Documents) -> Complaints:
    expected = {"api": (1, 0), "worker": (1, 1), "beat": (1, 0)}
    for each in LONG_RUNNING:
        spec = workload(documents, each)["spec"]
        surge, unavailable = expected[each]
        if spec.get("strategy") != {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable},
        }:
            yield f"{each}: how it is replaced"
    if (
        workload(documents, "api")["spec"].get("replicas", 1) < 2
        or workload(documents, "beat")["spec"]["replicas"] != 1
    ):
        yield "how many there are"
    for each in ("api", "worker"):
        spread = pod(documents, each).get("topologySpreadConstraints", [])
        if [one["topologyKey"] for one in spread] != ["kubernetes.io/hostname", "topology.kubernetes.io/zone"] or any(
            one["whenUnsatisfiable"] != "ScheduleAnyway" or not selects(one["labelSelector"], labels(documents, each))
            for one in spread
        ):
            yield f"{each}: where they are"
    job = workload(documents, "migrate")["spec"]
    if (job["template"]["spec"]["restartPolicy"], "ttlSecondsAfterFinished" in job) != ("Never", True):
        yield "migrate: stays, or leaves no log"


def selectors(documents: Documents) -> Complaints:
    """Whatever selects pods selects those that it is for."""
    for each in OURS:
        if labels(documents, each) != {NAME: "plugin-registry", COMPONENT: each}:
            yield f"{each}: its labels"
    for each in LONG_RUNNING:
        if workload(documents, each)["spec"]["selector"] != {"matchLabels": labels(documents, each)}:
            yield f"{each}: its selector"
    service = documents["Service", "plugin-registry"]["spec"]
    if service["selector"] != labels(documents, "api"):
        yield "the service's selector"
    ports = {one["name"]: one["containerPort"] for one in container(documents, "api").get("ports", [])}
    if {one["targetPort"] for one in service["ports"]} != {"http"} or ports != {"http": 8080}:
        yield "the service's port"
    budgets = {name: each["spec"] for (kind, name), each in documents.items() if kind == "PodDisruptionBudget"}
    if budgets != {
        f"plugin-registry-{each}": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": labels(documents, each)},
        }
        for each in ("api", "worker")
    }:
        yield "the budgets"


def scaling(documents: Documents) -> Complaints:
    scaler = documents["HorizontalPodAutoscaler", "plugin-registry-worker"]["spec"]
    if scaler["scaleTargetRef"] != {"apiVersion": "apps/v1", "kind": "Deployment", "name": "plugin-registry-worker"}:
        yield "another target"
    if "replicas" in workload(documents, "worker")["spec"]:
        yield "who applies it again undoes what the autoscaler did"
    match scaler["metrics"]:
        case [
            {"type": "External", "external": {"metric": {"name": name}, "target": {"type": "Value", "value": value}}}
        ]:
            if name not in (PROJECT / "deploy" / "grafana.json").read_text():  # held against what is told
                yield f"{name} is told by nobody"
            if not 5 <= int(value) < 300:
                yield "it comes before the alert, and not for a moment's wait"
        case _:
            yield "another metric"
    least, most = scaler["minReplicas"], scaler["maxReplicas"]
    apis = workload(documents, "api")["spec"]["replicas"]
    if not 2 <= least < most or (most + 1) * 4 + (apis + 1) * 11 > 97:
        yield "more than PostgreSQL has connections for as it comes"
    if (
        scaler["behavior"]["scaleDown"]["stabilizationWindowSeconds"]
        <= scaler["behavior"]["scaleUp"]["stabilizationWindowSeconds"]
    ):
        yield "it goes up and down"


INTERNET = "the internet"
REACHES: dict[str, dict[str, set[tuple[str, Any]]]] = {
    "dns": {"dns": {("UDP", 53), ("TCP", 53)}},
    "store": {"plugin-registry/store": {("TCP", 5432)}},
    "broker": {"plugin-registry/broker": {("TCP", 6379), ("TCP", 26379), ("TCP", 5671), ("TCP", 5672)}},
    "artifacts": {INTERNET: {("TCP", 443)}},
}
OUT = {
    "api": REACHES["dns"] | REACHES["store"] | REACHES["broker"],
    "worker": REACHES["dns"] | REACHES["store"] | REACHES["broker"] | REACHES["artifacts"],
    "beat": REACHES["dns"] | REACHES["broker"],
    "migrate": REACHES["dns"] | REACHES["store"],
}
IN: dict[str, dict[str, set[tuple[str, Any]]]] = {
    **{each: {} for each in OURS},
    "api": {"plugin-registry/reaches-api": {("TCP", "http")}},
}


def network(documents: Documents) -> Complaints:
    """What the policies let through, taken together, is this and nothing else, both ways, for each."""
    policies = [each["spec"] for (kind, _), each in documents.items() if kind == "NetworkPolicy"]
    for each in OURS:
        mine = [policy for policy in policies if selects(policy["podSelector"], labels(documents, each))]
        if {"Ingress", "Egress"} - {way for policy in mine for way in policy["policyTypes"]}:
            yield f"{each}: is open where no policy says anything"
        for way, peers, expected in (("egress", "to", OUT), ("ingress", "from", IN)):
            found: dict[str, set[tuple[str, Any]]] = {}
            for rule in (rule for policy in mine for rule in policy.get(way, [])):
                if not rule.get(peers) or not rule.get("ports"):
                    yield f"{each}: {way} of anything"
                    continue
                for peer in rule[peers]:
                    found.setdefault(_called(peer), set()).update((p["protocol"], p["port"]) for p in rule["ports"])
            if found != expected[each]:
                yield f"{each}: {way} is {found}"


def _called(peer: Document) -> str:
    match peer:
        case {"ipBlock": {"cidr": "0.0.0.0/0", "except": but}} if {ip_network(each) for each in but} == set(
            FORBIDDEN_V4
        ):
            return INTERNET
        case {"ipBlock": {"cidr": v6, "except": but}} if ip_network(v6) == GLOBAL_UNICAST_V6 and {
            ip_network(each) for each in but
        } == set(FORBIDDEN_V6):
            return INTERNET
        case {"namespaceSelector": {"matchLabels": {**those}}} if len(peer) == 1 and set(those.values()) == {"true"}:
            return str(*those)
        case {"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}:
            return "dns"
        case {"ipBlock": {"cidr": "169.254.20.10/32"}}:
            return "dns"
    return str(peer)


def egress_ports(documents: Documents) -> Complaints:
    """The second wall has its gates where the first has them."""
    ports = parse_ports(documents["ConfigMap", "plugin-registry"]["data"]["REGISTRY_EGRESS_PORTS"])
    rules = documents["NetworkPolicy", "plugin-registry-artifacts"]["spec"]["egress"]
    if [range(each["port"], each["port"] + 1) for rule in rules for each in rule["ports"]] != list(ports):
        yield "REGISTRY_EGRESS_PORTS and the policy differ"


CHECKS = (
    *(schemas, rights, volumes, secrets, settings, commands, probes, ends, resources, rollouts, selectors, scaling),
    *(network, egress_ports),
)


@pytest.mark.parametrize("check", CHECKS, ids=[check.__name__ for check in CHECKS])
def test_base_is_as_promised(check: Callable[[Documents], Complaints]) -> None:
    assert list(check(base())) == []


def _change(component: str, **changes: Any) -> Callable[[Documents], None]:
    return lambda documents: container(documents, component).update(changes)


def _change_pod(component: str, **changes: Any) -> Callable[[Documents], None]:
    return lambda documents: pod(documents, component).update(changes)


def _change_spec(kind: str, name: str, **changes: Any) -> Callable[[Documents], None]:
    return lambda documents: documents[kind, f"plugin-registry{name}"]["spec"].update(changes)


def _set(component: str, variable: str, value: str) -> Callable[[Documents], None]:
    return lambda documents: container(documents, component)["env"].append({"name": variable, "value": value})


def _allow(component: str, peer: Document, port: int = 443, way: str = "egress") -> Callable[[Documents], None]:
    def change(documents: Documents) -> None:
        rule = {"to" if way == "egress" else "from": [peer], "ports": [{"protocol": "TCP", "port": port}]}
        policy = {
            "podSelector": {"matchLabels": {COMPONENT: component}},
            "policyTypes": [way.capitalize()],
            way: [rule],
        }
        documents["NetworkPolicy", "another"] = {"metadata": {"name": "another"}, "spec": policy}

    return change


def _without(kind: str, name: str) -> Callable[[Documents], None]:
    return lambda documents: documents.update({(kind, f"plugin-registry{name}"): {"spec": {"podSelector": {
        "matchLabels": {"is": "nobody"}}, "policyTypes": []}}})  # fmt: skip


def _reach_metadata(documents: Documents) -> None:
    rule = documents["NetworkPolicy", "plugin-registry-artifacts"]["spec"]["egress"][0]
    rule["to"][0]["ipBlock"]["except"].remove("169.254.0.0/16")


def _inspect(documents: Documents) -> None:
    container(documents, "worker")["livenessProbe"]["exec"]["command"] = ["celery", "inspect", "ping"]


def _owner_serves(documents: Documents) -> None:
    pod(documents, "api")["volumes"][1]["secret"]["secretName"] = "plugin-registry-owner"


def _beat_has_the_store(documents: Documents) -> None:
    pod(documents, "beat")["volumes"].append(pod(documents, "api")["volumes"][1])


BROKEN: dict[str, tuple[Callable[[Documents], Complaints], Callable[[Documents], None]]] = {
    "a field that there is not": (schemas, _change("api", comand=["true"])),
    "a number for a string": (schemas, _set("api", "REGISTRY_DOWNLOADS", 5)),  # type: ignore[arg-type]
    "root": (rights, _change_pod("worker", securityContext={})),
    "a root that can be written to": (rights, _change("beat", securityContext={"readOnlyRootFilesystem": False})),
    "a token of the cluster's": (rights, _change_pod("api", automountServiceAccountToken=True)),
    "variables of services": (rights, _change_pod("api", enableServiceLinks=True)),
    "the node's network": (rights, _change_pod("worker", hostNetwork=True)),
    "zombies": (rights, _change_pod("worker", shareProcessNamespace=False)),
    "a folder of the node's": (
        volumes,
        lambda documents: pod(documents, "worker")["volumes"][0].update(emptyDir={"sizeLimit": "16Mi"}),
    ),
    "a /tmp without an end": (
        volumes,
        lambda documents: pod(documents, "worker")["volumes"][0].update(emptyDir={"medium": "Memory"}),
    ),
    "a secret in the environment": (secrets, _set("api", "REGISTRY_DATABASE_URL", "postgresql://h/d")),
    "a secret that everybody has": (secrets, _owner_serves),
    "a beat that reaches the store": (secrets, _beat_has_the_store),
    "a file that is nowhere": (secrets, _set("api", "REGISTRY_BROKER_CA_FILE", "/etc/ca.pem")),
    "a setting that is misspelled": (settings, _set("worker", "REGISTRY_DOWNLOAD", "5")),
    "a Job with what changes": (settings, lambda documents: container(documents, "migrate").update(envFrom=[])),
    "another command": (commands, _change("worker", command=["celery", "worker"])),
    "another image": (commands, _change("beat", image="plugin-registry:other")),
    "inspect ping": (probes, _inspect),
    "liveness by the store": (probes, _change("api", livenessProbe={"httpGet": {"path": "/readyz", "port": "http"}})),
    "a second for a probe": (
        probes,
        lambda documents: container(documents, "worker")["livenessProbe"].pop("timeoutSeconds"),
    ),
    "no probe": (probes, lambda documents: container(documents, "beat").pop("livenessProbe")),
    "an end in the middle of requests": (ends, lambda documents: container(documents, "api").pop("lifecycle")),
    "less time to end": (ends, _change_pod("worker", terminationGracePeriodSeconds=5)),
    "no limit": (resources, _change("worker", resources={"requests": {"cpu": "1", "memory": "192Mi"}})),
    "less memory than was measured": (
        resources,
        lambda documents: container(documents, "worker")["resources"]["requests"].update(memory="64Mi"),
    ),
    "no api while it is replaced": (rollouts, _change_spec("Deployment", "-api", strategy={"type": "Recreate"})),
    "one api": (rollouts, _change_spec("Deployment", "-api", replicas=1)),
    "all on one node": (rollouts, _change_pod("worker", topologySpreadConstraints=[])),
    "a service of other pods": (selectors, _change_spec("Service", "", selector={NAME: "plugin-registry"})),
    "a budget that lets nobody go": (selectors, _change_spec("PodDisruptionBudget", "-api", maxUnavailable=0)),
    "workers by processors": (
        scaling,
        _change_spec("HorizontalPodAutoscaler", "-worker", metrics=[{"type": "Resource"}]),
    ),
    "replicas beside the autoscaler": (scaling, _change_spec("Deployment", "-worker", replicas=2)),
    "too many for the store": (scaling, _change_spec("HorizontalPodAutoscaler", "-worker", maxReplicas=50)),
    "the way to a cloud's metadata": (network, _reach_metadata),
    "workers that reach the cluster": (network, _allow("worker", {"ipBlock": {"cidr": "10.0.0.0/8"}})),
    "an api that reaches out": (network, _allow("api", {"ipBlock": {"cidr": "0.0.0.0/0"}})),
    "workers that are reached": (network, _allow("worker", {"namespaceSelector": {}}, way="ingress")),
    "nothing held back": (network, _without("NetworkPolicy", "-nothing")),
    "no way to the store": (network, _without("NetworkPolicy", "-store")),
    "a port that only one wall opens": (
        egress_ports,
        lambda documents: documents["ConfigMap", "plugin-registry"]["data"].update(REGISTRY_EGRESS_PORTS="443,8443"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("check", "change"), BROKEN.values(), ids=list(BROKEN))
def test_a_broken_variant_is_refused(
    check: Callable[[Documents], Complaints], change: Callable[[Documents], None]
) -> None:
    documents = base()
    change(documents)
    assert set(check(documents)) - set(check(base()))


def test_every_check_has_a_variant_that_it_refuses() -> None:
    assert {check for check, _ in BROKEN.values()} == set(CHECKS)


def test_the_operators_alerts_are_the_alerts() -> None:
    (rule,) = parsed((KUBERNETES / "prometheus" / "alerts.yaml").read_text())
    (alerts,) = parsed((PROJECT / "deploy" / "alerts.yml").read_text())
    assert rule["spec"] == alerts, "run make deploy/kubernetes/prometheus/alerts.yaml"
    assert (rule["apiVersion"], rule["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")


def test_the_operator_scrapes_the_api_as_often_as_the_alerts_count_on() -> None:
    (monitor,) = parsed((KUBERNETES / "prometheus" / "pod-monitor.yaml").read_text())
    assert (monitor["apiVersion"], monitor["kind"]) == ("monitoring.coreos.com/v1", "PodMonitor")
    assert selects(monitor["spec"]["selector"], labels(base(), "api"))
    assert monitor["spec"]["podMetricsEndpoints"] == [
        {
            "port": "http",
            "path": "/metrics",
            "interval": "15s",
            "authorization": {"credentials": {"name": "plugin-registry-metrics", "key": "token"}},
        }
    ]
    assert monitor["spec"].keys() == {"selector", "podMetricsEndpoints"}


def test_keda_does_what_the_autoscaler_does() -> None:
    (scaled,) = parsed((KUBERNETES / "keda" / "scaled-object.yaml").read_text())
    scaler = base()["HorizontalPodAutoscaler", "plugin-registry-worker"]["spec"]
    metric = scaler["metrics"][0]["external"]
    assert (scaled["apiVersion"], scaled["kind"]) == ("keda.sh/v1alpha1", "ScaledObject")
    spec = scaled["spec"]
    (trigger,) = spec.pop("triggers")
    assert spec.pop("pollingInterval") > 0
    assert spec == {
        "scaleTargetRef": {"name": scaler["scaleTargetRef"]["name"]},
        "minReplicaCount": scaler["minReplicas"],
        "maxReplicaCount": scaler["maxReplicas"],
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": scaler["behavior"]}},
    }
    assert trigger["metadata"].pop("serverAddress").startswith("http://")
    assert trigger == {
        "type": "prometheus",
        "metricType": "Value",
        "metadata": {
            "query": f"max({metric['metric']['name']})",
            "threshold": metric["target"]["value"],
            "ignoreNullValues": "false",
        },
    }


def test_the_adapter_tells_what_the_autoscaler_asks_for() -> None:
    (adapter,) = parsed((KUBERNETES / "prometheus-adapter.yaml").read_text())
    metric = base()["HorizontalPodAutoscaler", "plugin-registry-worker"]["spec"]["metrics"][0]["external"]["metric"]
    assert adapter == {
        "externalRules": [
            {
                "seriesQuery": metric["name"] + '{namespace!=""}',
                "metricsQuery": "max(<<.Series>>{<<.LabelMatchers>>})",
                "resources": {"overrides": {"namespace": {"resource": "namespace"}}},
            }
        ]
    }


# What kustomize makes of it.


def unhashed(documents: list[Document]) -> Documents:
    """Return *documents* with the hash taken off the ConfigMap's name, here and where it is referred to."""
    (name,) = (each["metadata"]["name"] for each in documents if each["kind"] == "ConfigMap")
    plain = re.sub(r"-[a-z0-9]{10}\Z", "", name)
    assert name != plain, "settings that change restart nothing"
    return by_name([_replaced(each, name, plain) for each in documents])


def _replaced(document: Any, old: str, new: str) -> Any:
    if isinstance(document, dict):
        return {key: _replaced(value, old, new) for key, value in document.items()}
    if isinstance(document, list):
        return [_replaced(each, old, new) for each in document]
    return new if document == old else document


@pytest.mark.program("kubectl")
def test_base_builds_to_what_its_files_hold() -> None:
    assert unhashed(kustomized(KUBERNETES / "base")) == base()


@pytest.mark.program("kubectl")
def test_the_example_is_base_with_what_it_says() -> None:
    built = unhashed(kustomized(KUBERNETES / "example"))
    for check in (
        rights,
        volumes,
        secrets,
        settings,
        commands,
        probes,
        ends,
        resources,
        rollouts,
        selectors,
        scaling,
    ):
        assert list(check(built)) == [], check.__name__
    assert list(schemas(built)) == []
    (kustomization,) = parsed((KUBERNETES / "example" / "kustomization.yaml").read_text())
    (image,) = kustomization["images"]
    assert {container(built, each)["image"] for each in OURS} == {f"{image['newName']}:{image['newTag']}"}
    assert (
        workload(built, "migrate")["metadata"]["name"]
        == f"plugin-registry-migrate-{image['newTag'].replace('.', '-')}"
    )
    namespace = built["Namespace", "plugin-registry"]
    assert namespace["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    for (kind, name), each in built.items():
        assert each["metadata"].get("namespace", kind) == (
            "Namespace" if kind == "Namespace" else "plugin-registry"
        ), name
    backend = built["Ingress", "plugin-registry"]["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    service = built["Service", "plugin-registry"]["spec"]
    assert backend["port"]["name"] in {each["name"] for each in service["ports"]}


@pytest.mark.program("kubectl")
def test_the_examples_settings_are_some_that_are_taken_and_both_walls_open_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built = unhashed(kustomized(KUBERNETES / "example"))
    for key in [key for key in os.environ if key.startswith("REGISTRY_")]:
        monkeypatch.delenv(key)
    for key, value in built["ConfigMap", "plugin-registry"]["data"].items():
        monkeypatch.setenv(key, value)
    allowed = [str(each) for each in Settings().egress_allow_networks]
    (rule,) = built["NetworkPolicy", "plugin-registry-artifacts-inside"]["spec"]["egress"]
    assert [each["ipBlock"]["cidr"] for each in rule["to"]] == allowed != []
    assert list(egress_ports(built)) == []
    del built["NetworkPolicy", "plugin-registry-artifacts-inside"]
    assert list(network(built)) == []


@pytest.mark.program("kubectl")
def test_the_components_go_with_base(tmp_path: Path) -> None:
    here = Path(os.path.relpath(KUBERNETES, tmp_path.resolve()))
    (tmp_path / "kustomization.yaml").write_text(
        f"resources: [{here}/base]\ncomponents: [{here}/prometheus, {here}/keda]\nnamespace: monitored\n"
    )
    built = unhashed(kustomized(tmp_path))
    kinds = {kind for kind, _ in built}
    assert {"PodMonitor", "PrometheusRule", "ScaledObject"} <= kinds
    assert "HorizontalPodAutoscaler" not in kinds, "two would pull at the same workers"
    scaled = built["ScaledObject", "plugin-registry-worker"]["spec"]["scaleTargetRef"]["name"]
    assert ("Deployment", scaled) in built
