"""Services, policies, budgets and monitors select the pods they mean to."""

from tests.helm.chart import VALUES, Object, container, named, of_kind, pod_templates, render


def _matches(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


def test_services_select_one_component_and_a_port_it_has(objects: list[Object]) -> None:
    pods = pod_templates(objects)
    for service in of_kind(objects, "Service"):
        component = service["metadata"]["labels"]["app.kubernetes.io/component"]
        selected = [
            name for name, pod in pods.items() if _matches(service["spec"]["selector"], pod["metadata"]["labels"])
        ]
        assert selected == [component]
        names = {port["name"] for port in container(objects, component)["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= names


def test_workloads_select_their_own_pods(objects: list[Object]) -> None:
    for workload in of_kind(objects, "StatefulSet") + of_kind(objects, "Deployment"):
        spec = workload["spec"]
        assert _matches(spec["selector"]["matchLabels"], spec["template"]["metadata"]["labels"])


def test_the_admin_port_is_reachable_inside_alone(objects: list[Object]) -> None:
    """Whatever the public Service's type is, the admin port is on a headless Service of its own."""
    public = named(objects, "Service", "prod-foldback")
    assert [port["targetPort"] for port in public["spec"]["ports"]] == ["chat"]
    admin = named(objects, "Service", "prod-foldback-admin")
    assert admin["spec"]["clusterIP"] == "None"
    [server] = of_kind(objects, "StatefulSet")
    assert server["spec"]["serviceName"] == "prod-foldback-admin"


def test_the_monitor_scrapes_server_and_trainer() -> None:
    objects = render(VALUES["kafka-sasl"])
    [monitor] = of_kind(objects, "ServiceMonitor")
    scraped = [
        service["metadata"]["name"]
        for service in of_kind(objects, "Service")
        if _matches(monitor["spec"]["selector"]["matchLabels"], service["metadata"]["labels"])
    ]
    assert sorted(scraped) == ["prod-foldback-server-metrics", "prod-foldback-trainer-metrics"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert [endpoint["port"] for endpoint in monitor["spec"]["endpoints"]] == ["metrics"]


def test_network_policy_admits_the_named_peers_alone() -> None:
    values = VALUES["kafka-sasl"]
    objects = render(values)
    policy = named(objects, "NetworkPolicy", "prod-foldback-server")["spec"]
    pods = pod_templates(objects)
    assert _matches(policy["podSelector"]["matchLabels"], pods["server"]["metadata"]["labels"])
    admitted = {rule["ports"][0]["port"]: rule["from"] for rule in policy["ingress"]}
    assert set(admitted) == {"chat", "admin", "metrics"}
    assert admitted["chat"] == values["networkPolicy"]["chatFrom"]
    trainer, *operators = admitted["admin"]
    assert _matches(trainer["podSelector"]["matchLabels"], pods["trainer"]["metadata"]["labels"])
    assert operators == values["networkPolicy"]["adminFrom"]


def test_an_empty_list_of_peers_admits_nobody() -> None:
    """An ingress rule without `from` admits everybody: the rule itself must go."""
    closed = {"enabled": True, "chatFrom": [], "adminFrom": [], "metricsFrom": []}
    objects = render({"networkPolicy": closed})
    server = named(objects, "NetworkPolicy", "prod-foldback-server")["spec"]
    assert [rule["ports"][0]["port"] for rule in server["ingress"]] == ["admin"]
    trainer = named(objects, "NetworkPolicy", "prod-foldback-trainer")["spec"]
    assert trainer["policyTypes"] == ["Ingress"]
    assert "ingress" not in trainer


def test_a_node_drain_takes_one_server_at_a_time() -> None:
    objects = render({"server": {"replicas": 1}})
    [budget] = of_kind(objects, "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1
    assert "minAvailable" not in budget["spec"]
    labels = pod_templates(objects)["server"]["metadata"]["labels"]
    assert _matches(budget["spec"]["selector"]["matchLabels"], labels)
