"""Keys and certificates reach the pods as files that follow their Secrets."""

import sys
from pathlib import Path
from typing import Any

import helm_python
import pytest

from server import probe
from tests.helm.chart import VALUES, Load, Object, container, merged, pod_templates, render

ALL = merged(VALUES["tls"], {"server": {"tls": {"clientCaSecret": "foldback-clients-ca"}}})


def files(objects: list[Object], component: str) -> dict[str, tuple[str, str]]:
    """Where a container finds what the Secrets of volume `access` hold: path → (Secret, key)."""
    [mount] = [one for one in container(objects, component)["volumeMounts"] if one["name"] == "access"]
    assert mount["readOnly"]
    assert "subPath" not in mount, "the kubelet never renews such a file"
    [volume] = [one for one in pod_templates(objects)[component]["spec"]["volumes"] if one["name"] == "access"]
    assert volume["projected"]["defaultMode"] & 0o007 == 0
    return {
        f"{mount['mountPath']}/{item['path']}": (source["secret"]["name"], item["key"])
        for source in volume["projected"]["sources"]
        for item in source["secret"]["items"]
    }


def test_the_server_finds_what_its_settings_name(load: Load) -> None:
    objects = render(ALL)
    access = load(objects, "server").server.access
    assert files(objects, "server") == {
        str(access.api_keys_file): ("foldback-api-keys", "api_keys.yaml"),
        str(access.admin_keys_file): ("foldback-admin-keys", "admin_keys.yaml"),
        str(access.tls_certificate): ("foldback-server-tls", "tls.crt"),
        str(access.tls_key): ("foldback-server-tls", "tls.key"),
        str(access.client_ca): ("foldback-clients-ca", "ca.crt"),
        str(access.admin_client_ca): ("foldback-operators-ca", "ca.crt"),
    }


def test_the_trainer_calls_with_what_the_admin_port_asks_for(load: Load) -> None:
    objects = render(ALL)
    access = load(objects, "trainer").trainer.server_access
    assert files(objects, "trainer") == {
        access.tls_ca: ("foldback-server-tls", "ca.crt"),
        access.tls_certificate: ("foldback-trainer-tls", "tls.crt"),
        access.tls_key: ("foldback-trainer-tls", "tls.key"),
    }, "and not the server's key"
    assert access.api_key.get_secret_value()


def test_a_certificate_of_a_public_authority_needs_no_other(load: Load) -> None:
    objects = render({"server": {"tls": {"secret": "tls"}}})
    assert load(objects, "trainer").trainer.server_access.tls_ca == "system"
    assert not any(volume["name"] == "access" for volume in pod_templates(objects)["trainer"]["spec"]["volumes"])


@pytest.mark.parametrize("name", [name for name in VALUES if name != "tls"])
def test_without_a_secret_there_is_no_volume(name: str) -> None:
    for template in pod_templates(render(VALUES[name])).values():
        assert not any(volume["name"] == "access" for volume in template["spec"]["volumes"])


def test_a_rotation_restarts_nothing() -> None:
    """Pods start anew where their template changes: nothing in it depends on what a Secret holds."""
    templates = [pod_templates(render(ALL)) for _ in range(2)]
    assert templates[0] == templates[1]
    for template in templates[0].values():
        assert set(template["metadata"].get("annotations", {})) <= {"checksum/settings"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {
                "server": {"access": {"apiKeysSecret": "keys"}},
                "settings": {"server": {"access": {"api_keys": [{"sha256": "0" * 64}]}}},
            },
            "settings.server.access.api_keys and the Secret keys",
        ),
        ({"server": {"tls": {"clientCaSecret": "ca"}}}, "server.tls.secret is empty"),
        ({"trainer": {"certificateSecret": "tls"}}, "server.tls.secret is empty"),
    ],
)
def test_values_that_contradict_each_other_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(helm_python.HelmError, match=said):
        render(values)


def test_probes_ask_where_no_tls_is() -> None:
    server = container(render(VALUES["tls"]), "server")
    ports = {port["name"]: str(port["containerPort"]) for port in server["ports"]}
    for name, gauge in (("readinessProbe", "foldback_serving"), ("livenessProbe", "foldback_engine_up")):
        command = server[name]["exec"]["command"]
        assert command == ["python", "-m", probe.__name__, ports["metrics"], gauge]
        assert server[name]["timeoutSeconds"] > probe.TIMEOUT_S
    assert server["startupProbe"]["httpGet"]["port"] == "metrics"


def test_a_probe_loads_next_to_nothing() -> None:
    """It runs every few seconds, in the server's own memory and on its processors."""
    source = Path(probe.__file__).read_text()
    imported = [line.split()[1] for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names
