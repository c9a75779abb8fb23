"""The chart of deploy/helm: Helm renders it, Kubernetes' schemas accept it, and it is true about Ringback."""

import re
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app import tasks
from app.engine_models import Queue
from app.metrics import TASKS_OLDEST
from app.waiting import LONGEST_SECONDS
from tests import helm
from tools import settings_table

Object = dict[str, Any]

KUBERNETES = ("1.27", "1.37")
"""The oldest that the chart takes, and a recent one."""
SECRETS = {
    "RINGBACK_DATABASE_URL": "postgresql+asyncpg://ringback:database-secret@postgres/ringback",
    "RINGBACK_REDIS_URL": "redis://:valkey-secret@valkey:6379/0",
    "RINGBACK_SECRET_KEY": "key-secret",
}
LEAST = {"secret": {"existing": "ringback-secrets"}}
SCALED = {"autoscaling": {"enabled": True}}
EVERYTHING = {
    "secret": {"values": SECRETS},
    "image": {"repository": "registry.example.com/ringback", "tag": "edge"},
    "imagePullSecrets": [{"name": "my-registry"}],
    "settings": {
        "RINGBACK_HOME_COUNTRY": "GB",
        "RINGBACK_RETENTION_DAYS": 3000000,
        "RINGBACK_TRACES_SHARE": 0.25,
        "RINGBACK_CONSOLE": False,
        "RINGBACK_S3_BUCKET": "recordings",
    },
    "api": SCALED,
    "workers": {"calls": SCALED, "callbacks": SCALED, "transcripts": SCALED},
    "service": {"type": "LoadBalancer", "port": 8080},
    "ingress": {"enabled": True, "className": "nginx", "host": "calls.example.com", "tlsSecret": "tls"},
    "metrics": {"podMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
    "podAnnotations": {"example.com/team": "voice"},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "voice", "operator": "Exists"}],
    "extraVolumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}}],
    "extraVolumeMounts": [{"name": "models", "mountPath": "/data/models", "readOnly": True}],
}
PROCESSES = {"api", *Queue}


@pytest.fixture(scope="module")
def least() -> list[Object]:
    return _objects(LEAST)


@pytest.fixture(scope="module")
def everything() -> list[Object]:
    return _objects(EVERYTHING)


@pytest.fixture(scope="module", params=["least", "everything"])
def objects(request: pytest.FixtureRequest) -> list[Object]:
    rendered: list[Object] = request.getfixturevalue(request.param)
    return rendered


def _objects(values: Object, name: str = "prod") -> list[Object]:
    texts = helm.render(values, name).items()
    found = [document for path, text in texts if path.endswith(".yaml") for document in yaml.safe_load_all(text)]
    return [document for document in found if document is not None]


def _find(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = [each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def _pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """The pod of each object that has one, with the name of its component."""
    for each in objects:
        if each["kind"] in ("Deployment", "Job"):
            yield (
                each["metadata"]["labels"]["app.kubernetes.io/component"],
                each["spec"]["template"]["spec"],
            )
        elif each["kind"] == "Pod":
            yield each["metadata"]["labels"]["app.kubernetes.io/component"], each["spec"]


def _processes(objects: list[Object]) -> dict[str, Object]:
    """The pods of the API and of each kind of worker."""
    return {name: pod for name, pod in _pods(objects) if name in PROCESSES}


def _environment(pod: Object) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in pod["containers"][0].get("env", [])}


@pytest.mark.parametrize("values", [LEAST, EVERYTHING], ids=["least", "everything"])
def test_helm_finds_nothing_to_complain_about(values: Object) -> None:
    assert helm.lint(values) == []


@pytest.mark.parametrize("kubernetes", KUBERNETES)
def test_kubernetes_knows_every_field(objects: list[Object], kubernetes: str) -> None:
    for each in objects:
        if each["kind"] != "PodMonitor":  # of the Prometheus operator
            kubernetes_validate.validate(each, kubernetes, strict=True)


def test_there_is_a_deployment_for_each_process_and_a_budget(objects: list[Object]) -> None:
    assert set(_processes(objects)) == PROCESSES
    for name in PROCESSES:
        deployment = _find(objects, "Deployment", f"prod-ringback-{name}")
        labels = deployment["spec"]["template"]["metadata"]["labels"].items()
        for selecting in (deployment, _find(objects, "PodDisruptionBudget", f"prod-ringback-{name}")):
            assert selecting["spec"]["selector"]["matchLabels"].items() <= labels
    assert [pod["containers"][0]["args"] for _, pod in sorted(_processes(objects).items())] == [
        ["serve"],
        *[["worker", kind] for kind in sorted(Queue)],
    ]


def test_every_pod_is_without_root_and_without_rights(objects: list[Object]) -> None:
    for name, pod in _pods(objects):
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert container["resources"]["limits"]["memory"], name


def test_the_pods_have_the_user_of_the_image(objects: list[Object]) -> None:
    dockerfile = (helm.CHART.parents[2] / "Dockerfile").read_text()
    (user,) = re.findall(r"^USER (\d+):(\d+)$", dockerfile, re.MULTILINE)
    for _, pod in _pods(objects):
        assert (str(pod["securityContext"]["runAsUser"]), str(pod["securityContext"]["runAsGroup"])) == user


def test_a_service_called_ringback_does_not_set_settings(objects: list[Object]) -> None:
    # Kubernetes would add RINGBACK_PORT=tcp://… to each pod of the namespace.
    for name, pod in _pods(objects):
        assert pod["enableServiceLinks"] is False, name


def test_probes_ask_ports_that_the_process_listens_on(objects: list[Object]) -> None:
    for name, pod in _processes(objects).items():
        (container,) = pod["containers"]
        ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
        environment = _environment(pod)
        assert environment["RINGBACK_METRICS_PORT"] == ports["metrics"]
        assert environment.get("RINGBACK_PORT") == ports.get("http")
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = container[probe]["httpGet"]
            assert asked == (
                {"path": "/healthz", "port": "http"} if name == "api" else {"path": "/metrics", "port": "metrics"}
            )


def test_a_pod_has_longer_to_stop_than_its_process_takes(objects: list[Object]) -> None:
    for name, pod in _processes(objects).items():
        grace = float(_environment(pod).get("RINGBACK_SHUTDOWN_GRACE_SECONDS", 5))  # 5: of uvicorn
        before = pod["containers"][0].get("lifecycle", {}).get("preStop", {"exec": {"command": ["sleep", "0"]}})
        assert pod["terminationGracePeriodSeconds"] >= grace + float(before["exec"]["command"][1]) + 10, name


def test_every_variable_is_a_setting(objects: list[Object]) -> None:
    known = {options.variable(name) for options in settings_table.TABLES.values() for name in options.model_fields}
    for name, pod in _pods(objects):
        assert set(_environment(pod)) <= known, name
    assert set(SECRETS) <= known


def test_the_settings_reach_each_process_as_they_were_written(everything: list[Object]) -> None:
    for name, pod in _pods(everything):
        if name != "ready":
            assert (
                _environment(pod).items()
                >= {
                    "RINGBACK_HOME_COUNTRY": "GB",
                    "RINGBACK_RETENTION_DAYS": "3000000",
                    "RINGBACK_TRACES_SHARE": "0.25",
                    "RINGBACK_CONSOLE": "false",
                    "RINGBACK_PUBLIC_URL": "https://calls.example.com",
                }.items()
            )


def test_secrets_are_only_in_secrets(everything: list[Object]) -> None:
    holding = [each["kind"] for each in everything if "-secret" in yaml.safe_dump(each)]
    assert holding == ["Secret", "Secret"]
    assert _find(everything, "Secret", "prod-ringback")["stringData"] == SECRETS


def test_a_secret_of_your_own_is_used_and_none_is_made(least: list[Object]) -> None:
    assert not [each for each in least if each["kind"] == "Secret"]
    for name, pod in _pods(least):
        if name != "ready":
            assert pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "ringback-secrets"}}]


def test_the_chart_says_what_is_missing() -> None:
    with pytest.raises(
        helm.HelmFailed, match=r"Set secret.existing to the name of a secret, or secret.values.RINGBACK_"
    ):
        helm.render({})
    with pytest.raises(helm.HelmFailed, match=r"ingress.host is needed"):
        helm.render({**LEAST, "ingress": {"enabled": True}})
    with pytest.raises(helm.HelmFailed, match=r"replica"):
        helm.render({**LEAST, "api": {"replica": 3}})


def test_secrets_are_refused_as_settings() -> None:
    secret = [
        options.variable(name)
        for options in settings_table.TABLES.values()
        for name, field in options.model_fields.items()
        if "SecretStr" in str(field.annotation)
    ]
    with pytest.raises(helm.HelmFailed) as refused:
        helm.render({**LEAST, "settings": dict.fromkeys([*secret, *SECRETS], "x")})
    assert not [variable for variable in [*secret, *SECRETS] if f"'{variable}'" not in str(refused.value)]


def test_tables_are_upgraded_before_any_new_pod(everything: list[Object]) -> None:
    job = _find(everything, "Job", "prod-ringback-migrate")
    copy = _find(everything, "Secret", "prod-ringback-migrate")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["migrate"]
    assert container["envFrom"] == [{"secretRef": {"name": copy["metadata"]["name"]}}]
    weights = []
    for hook in (copy, job):
        annotations = hook["metadata"]["annotations"]
        assert annotations["helm.sh/hook"] == "pre-install,pre-upgrade"
        weights.append(int(annotations["helm.sh/hook-weight"]))
    assert weights == sorted(set(weights))
    # What is no hook exists only after the hooks, so the Job must not use it.
    assert not [volume for volume in job["spec"]["template"]["spec"]["volumes"] if "persistentVolumeClaim" in volume]


def test_recordings_are_in_a_volume_that_stays_or_in_the_bucket(least: list[Object], everything: list[Object]) -> None:
    claim = _find(least, "PersistentVolumeClaim", "prod-ringback-data")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in _processes(least).values():
        assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "prod-ringback-data"
    assert not [each for each in everything if each["kind"] == "PersistentVolumeClaim"]
    for pod in _processes(everything).values():
        assert pod["volumes"][0]["emptyDir"] == {}


def test_workers_are_scaled_by_the_age_of_their_own_tasks(everything: list[Object]) -> None:
    for queue in Queue:
        (metric,) = _find(everything, "HorizontalPodAutoscaler", f"prod-ringback-{queue}")["spec"]["metrics"]
        asked = metric["external"]["metric"]
        (kinds,) = asked["selector"]["matchExpressions"]
        assert asked["name"] == TASKS_OLDEST._name
        assert {*asked["selector"]["matchLabels"], kinds["key"]} == set(TASKS_OLDEST._labelnames)
        assert set(kinds["values"]) == {kind for kind, of in tasks.QUEUE_OF.items() if of is queue}
        assert "replicas" not in _find(everything, "Deployment", f"prod-ringback-{queue}")["spec"]


def test_the_ingress_waits_longer_than_a_client_may(everything: list[Object]) -> None:
    ingress = _find(everything, "Ingress", "prod-ringback")
    backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    service = _find(everything, "Service", backend["name"])
    assert backend["port"]["name"] in [port["name"] for port in service["spec"]["ports"]]
    assert int(ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-read-timeout"]) > LONGEST_SECONDS


def test_prometheus_knows_the_pods_as_the_alerts_do(everything: list[Object]) -> None:
    (endpoint,) = _find(everything, "PodMonitor", "prod-ringback")["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == "metrics"
    assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": "ringback"}]


def test_names_stay_short_enough() -> None:
    for each in _objects(LEAST, "a" * 53):
        assert len(each["metadata"]["name"]) <= 63


def test_the_chart_has_the_version_of_the_package() -> None:
    chart = yaml.safe_load((helm.CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == version("ringback")
    assert chart["kubeVersion"] == f">={KUBERNETES[0]}.0-0"
