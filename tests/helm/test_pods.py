"""What every pod promises: security, probes, graceful ends, volumes that exist."""

import pytest

from foldback.v1 import chat_pb2
from tests.helm.chart import VALUES, Object, container, merged, named, of_kind, pod_templates, render


def test_pods_run_without_privileges(objects: list[Object]) -> None:
    pods = pod_templates(objects)
    assert set(pods) == {"server", "trainer", "topics"}
    for pod in (template["spec"] for template in pods.values()):
        assert pod["automountServiceAccountToken"] is False
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for one in pod["containers"]:
            assert one["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in one["resources"]["limits"]
            assert "cpu" in one["resources"]["requests"]


def test_every_mount_has_its_volume_and_every_volume_a_mount(objects: list[Object]) -> None:
    claims = {one["metadata"]["name"] for one in of_kind(objects, "PersistentVolumeClaim")}
    templates = {
        claim["metadata"]["name"]
        for one in of_kind(objects, "StatefulSet")
        for claim in one["spec"]["volumeClaimTemplates"]
    }
    for component, template in pod_templates(objects).items():
        pod = template["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = {mount["name"] for one in pod["containers"] for mount in one["volumeMounts"]}
        assert mounts == set(volumes) | (templates if component == "server" else set()), component
        used = {
            volume["persistentVolumeClaim"]["claimName"]
            for volume in volumes.values()
            if "persistentVolumeClaim" in volume
        }
        assert used <= claims | {"base-models"}


def test_writable_paths_are_volumes(objects: list[Object]) -> None:
    """The root is read-only: data, caches and /tmp must be mounted."""
    for component in ("server", "trainer"):
        writable = {
            mount["mountPath"] for mount in container(objects, component)["volumeMounts"] if not mount.get("readOnly")
        }
        assert {"/tmp", "/var/cache/foldback", "/var/lib/foldback"} <= writable


def test_what_must_not_be_lost_is_on_a_claim(objects: list[Object]) -> None:
    """The spool a replica, the preference store, and the registry unless it is a bucket."""
    [server] = of_kind(objects, "StatefulSet")
    [claim] = server["spec"]["volumeClaimTemplates"]
    assert _mount(container(objects, "server"), "/var/lib/foldback") == claim["metadata"]["name"]
    volume = _mount(container(objects, "trainer"), "/var/lib/foldback")
    [source] = [one for one in pod_templates(objects)["trainer"]["spec"]["volumes"] if one["name"] == volume]
    kept = named(objects, "PersistentVolumeClaim", source["persistentVolumeClaim"]["claimName"])
    assert kept["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def _mount(one: Object, path: str) -> str:
    [name] = [mount["name"] for mount in one["volumeMounts"] if mount["mountPath"] == path]
    return str(name)


@pytest.mark.parametrize("name", [name for name in VALUES if name != "tls"])
def test_server_is_probed_by_the_health_service(name: str) -> None:
    server = container(render(VALUES[name]), "server")
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    assert server["startupProbe"]["grpc"] == server["livenessProbe"]["grpc"] == {"port": ports["chat"]}
    chat = chat_pb2.DESCRIPTOR.services_by_name["ChatService"].full_name
    assert server["readinessProbe"]["grpc"] == {"port": ports["chat"], "service": chat}


@pytest.mark.parametrize("seconds", [5, 600, 1801])
def test_startup_probe_waits_for_the_model(seconds: int) -> None:
    probe = container(render({"server": {"startSeconds": seconds}}), "server")["startupProbe"]
    assert seconds <= probe["periodSeconds"] * probe["failureThreshold"] < seconds + probe["periodSeconds"]


@pytest.mark.parametrize("seconds", [1, 60, 600])
def test_grace_period_outlasts_the_drain(seconds: int) -> None:
    objects = render({"server": {"drainSeconds": seconds}})
    sleep = container(objects, "server")["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod_templates(objects)["server"]["spec"]["terminationGracePeriodSeconds"] >= sleep + seconds + 10


def test_one_trainer_at_a_time(objects: list[Object]) -> None:
    [trainer] = of_kind(objects, "Deployment")
    assert trainer["spec"]["replicas"] == 1
    assert trainer["spec"]["strategy"] == {"type": "Recreate"}


def test_a_changed_setting_restarts_the_pods() -> None:
    before, after = render({}), render({"settings": {"server": {"engine": "vllm"}}})
    for component in ("server", "trainer"):
        checksums = {
            pod_templates(objects)[component]["metadata"]["annotations"]["checksum/settings"]
            for objects in (before, after)
        }
        assert len(checksums) == 2


def test_gpus_are_asked_for_as_limits() -> None:
    objects = render(VALUES["gpu"])
    for component in ("server", "trainer"):
        assert container(objects, component)["resources"]["limits"]["nvidia.com/gpu"] == 1
        pod = pod_templates(objects)[component]["spec"]
        assert pod["runtimeClassName"] == "nvidia"
        assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"


def test_secrets_are_references_alone() -> None:
    objects = render(merged(VALUES["kafka-sasl"], VALUES["object-store"]))
    assert of_kind(objects, "Secret") == []
    for component in ("server", "trainer", "topics"):
        one = container(objects, component)
        from_secrets = {
            variable["name"]: variable["valueFrom"]["secretKeyRef"]["name"]
            for variable in one["env"]
            if "valueFrom" in variable
        }
        assert from_secrets == {
            "FOLDBACK_FEEDBACK__SASL_USERNAME": "foldback-kafka",
            "FOLDBACK_FEEDBACK__SASL_PASSWORD": "foldback-kafka",
        }
        assert one["envFrom"] == [{"secretRef": {"name": "foldback-object-store"}}]
    keys = "token_keys.json"
    [mount] = [one for one in container(objects, "server")["volumeMounts"] if one.get("subPath") == keys]
    assert mount["mountPath"] == f"/var/lib/foldback/{keys}"
    [volume] = [one for one in pod_templates(objects)["server"]["spec"]["volumes"] if one["name"] == "token-keys"]
    assert volume["secret"]["secretName"] == "foldback-token-keys"


def test_the_trainer_alone_gets_its_key_to_the_admin_port() -> None:
    objects = render(VALUES["keys"])
    keys = {
        component: [
            one for one in container(objects, component)["env"] if one["name"].endswith("SERVER_ACCESS__API_KEY")
        ]
        for component in ("server", "trainer", "topics")
    }
    assert keys["server"] == keys["topics"] == []
    [key] = keys["trainer"]
    assert key["name"] == "FOLDBACK_TRAINER__SERVER_ACCESS__API_KEY"
    assert key["valueFrom"] == {"secretKeyRef": {"name": "foldback-trainer-key", "key": "key"}}
