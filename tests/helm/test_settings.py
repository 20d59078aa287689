"""The foldback.yaml that pods read is one that the settings accept, and the chart's schema knows the settings."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from scripts.generate_values_schema import OWNED_BY_CHART, SCHEMA, refreshed
from settings.rules import Constitution, load_rules
from tests.helm.chart import CHART, VALUES, Load, Object, container, foldback_yaml, merged, named, pod_templates, render


@pytest.mark.parametrize("component", ["server", "trainer", "topics"])
def test_pods_can_read_their_settings(objects: list[Object], load: Load, component: str) -> None:
    loaded = load(objects, component)
    paths = {mount["mountPath"] for mount in container(objects, "server")["volumeMounts"]}
    assert str(loaded.data_dir) in paths
    assert loaded.registry.url.removeprefix("file://") in paths or loaded.registry.url.startswith("s3://")
    assert loaded.feedback.bootstrap_servers


def test_ports_are_those_of_the_containers(objects: list[Object], load: Load) -> None:
    loaded = load(objects, "server")
    assert loaded.server.host == "0.0.0.0"
    ports = {port["name"]: port["containerPort"] for port in container(objects, "server")["ports"]}
    assert ports == {
        "chat": loaded.server.port,
        "admin": loaded.server.admin_port,
        "metrics": loaded.server.metrics_port,
    }


def test_the_trainer_finds_the_servers_and_is_found(objects: list[Object], load: Load) -> None:
    trainer = load(objects, "trainer").trainer
    admin = named(objects, "Service", "prod-foldback-admin")
    [port] = admin["spec"]["ports"]
    assert trainer.server_admin_address == f"{admin['metadata']['name']}.ml.svc:{port['port']}"
    assert trainer.metrics_host == "0.0.0.0"
    assert container(objects, "trainer")["ports"] == [{"name": "metrics", "containerPort": trainer.metrics_port}]


def test_kafka_over_tls_with_sasl(load: Load) -> None:
    objects = render(VALUES["kafka-sasl"])
    feedback = load(objects, "server").feedback
    assert feedback.security_protocol == "SASL_SSL"
    assert feedback.sasl_username == feedback.sasl_password.get_secret_value() == "from-a-secret"
    directory = str(Path(feedback.ssl_cafile).parent)
    for component in ("server", "trainer", "topics"):
        mounts = {mount["mountPath"] for mount in container(objects, component)["volumeMounts"]}
        assert directory in mounts


def test_keys_are_digests_in_the_settings_and_secrets_in_the_pods(load: Load) -> None:
    objects = render(VALUES["keys"])
    access = load(objects, "server").server.access
    assert [key.tenant for key in (*access.api_keys, *access.admin_keys)] == ["shop", "operators", "trainer"]
    assert load(objects, "trainer").trainer.server_access.api_key.get_secret_value() == "from-a-secret"


def test_gpu_servers_hold_versions_beside_each_other(load: Load) -> None:
    loaded = load(render(VALUES["gpu"]), "server")
    assert (loaded.server.engine, loaded.server.swap_mode) == ("vllm", "adapter")
    # Else the engine would refuse what the trainer makes.
    assert loaded.trainer.lora.rank <= loaded.server.vllm.max_adapter_rank


@pytest.mark.parametrize(
    ("kafka", "protocol"),
    [
        ({}, "PLAINTEXT"),
        ({"tls": True}, "SSL"),
        ({"credentialsSecret": "kafka"}, "SASL_PLAINTEXT"),
        ({"tls": True, "credentialsSecret": "kafka"}, "SASL_SSL"),
    ],
)
def test_security_protocol_follows_the_values(kafka: Object, protocol: str, load: Load) -> None:
    assert load(render({"kafka": kafka}), "server").feedback.security_protocol == protocol


def test_numbers_survive_rendering(load: Load) -> None:
    """Helm holds numbers as floats: large and small ones must not turn into text that settings refuse."""
    large, small = 10 * 1024**3, 1e-6
    given = {"feedback": {"spool_max_bytes": large}, "trainer": {"gate": {"min_entropy_nats": small}}}
    loaded = load(render({"settings": given}), "server")
    assert loaded.feedback.spool_max_bytes == large
    assert loaded.trainer.gate.min_entropy_nats == small


def test_rules_lie_beside_the_settings_where_the_trainer_looks(load: Load, tmp_path: Path) -> None:
    rules = [{"name": "short", "kind": "length", "most": 80, "veto": 0.5}, {"name": "polite", "kind": "refusal"}]
    objects = render({"rules": rules})
    [config] = [one for one in objects if one["kind"] == "ConfigMap" and "rules.yaml" in one["data"]]
    assert "foldback.yaml" in config["data"], "one folder for both"
    loaded = load(objects, "trainer")
    (tmp_path / "rules.yaml").write_text(config["data"]["rules.yaml"])
    assert [rule.name for rule in load_rules(loaded).rules] == ["short", "polite"]
    checksums = {
        pod_templates(render(values))["trainer"]["metadata"]["annotations"]["checksum/settings"]
        for values in ({}, {"rules": rules})
    }
    assert len(checksums) == 2, "the trainer restarts with other rules"


def test_the_chart_ships_a_checkout_s_constitution_and_knows_every_kind() -> None:
    shipped = yaml.safe_load((CHART / "values.yaml").read_text())["rules"]
    assert shipped == yaml.safe_load((CHART.parents[1] / "rules.yaml").read_text())["rules"]
    [known] = json.loads(SCHEMA.read_text())["properties"]["rules"]["items"]["properties"]["kind"].values()
    kinds = Constitution.model_json_schema()["properties"]["rules"]["items"]["discriminator"]["mapping"]
    assert set(known) == set(kinds)


def test_drain_is_the_server_s_own() -> None:
    rendered = yaml.safe_load(foldback_yaml(render({"server": {"drainSeconds": 45}})))
    assert rendered["server"]["drain_timeout_s"] == 45


def test_service_links_are_off(objects: list[Object]) -> None:
    """A Service named foldback would inject FOLDBACK_PORT and the like, which settings.load refuses."""
    for component, template in pod_templates(objects).items():
        assert template["spec"]["enableServiceLinks"] is False, component


def test_the_schema_leaves_out_exactly_what_the_chart_writes() -> None:
    every = merged(VALUES["tls"], {"server": {"tls": {"clientCaSecret": "clients-ca"}}})
    assert set(_fields(yaml.safe_load(foldback_yaml(render(every))))) == OWNED_BY_CHART - {"console"}


def _fields(section: Object, path: str = "") -> Iterator[str]:
    for name, value in section.items():
        if isinstance(value, dict):
            yield from _fields(value, f"{path}{name}.")
        else:
            yield f"{path}{name}"


def test_the_schema_is_fresh() -> None:
    committed = SCHEMA.read_text()
    assert refreshed(committed) == committed, "run 'python scripts/generate_values_schema.py' and commit"
