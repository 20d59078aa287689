"""Writes what `foldback.yaml` may hold into helm/foldback/values.schema.json, at `$defs.settings`.

So `helm lint` refuses a mistyped setting before any pod starts. `--check` says whether the committed schema is fresh.
"""

import json
import sys
from pathlib import Path
from typing import Any

from settings import Settings

SCHEMA = Path(__file__).parents[1] / "helm/foldback/values.schema.json"

OWNED_BY_CHART = {
    "data_dir",
    "console",
    "model.name",
    "model.dir",
    "feedback.bootstrap_servers",
    "feedback.security_protocol",
    "feedback.ssl_cafile",
    "registry.url",
    "server.host",
    "server.port",
    "server.admin_port",
    "server.metrics_port",
    "server.drain_timeout_s",
    "server.access.api_keys_file",
    "server.access.admin_keys_file",
    "server.access.tls_certificate",
    "server.access.tls_key",
    "server.access.client_ca",
    "server.access.admin_client_ca",
    "trainer.metrics_host",
    "trainer.metrics_port",
    "trainer.server_admin_address",
    "trainer.server_access.tls_ca",
    "trainer.server_access.tls_certificate",
    "trainer.server_access.tls_key",
}
"""What templates/_settings.tpl writes, and the section that no pod reads: not for `settings:` in the values."""


def settings_schema() -> dict[str, Any]:
    """The JSON schema of the settings an operator may give, without references."""
    schema = Settings.model_json_schema()
    return _inlined(schema, schema.pop("$defs"), path="")


def _inlined(schema: dict[str, Any], sections: dict[str, Any], path: str) -> dict[str, Any]:
    if "$ref" in schema:
        named = sections[schema["$ref"].removeprefix("#/$defs/")]
        schema = {**named, **{key: value for key, value in schema.items() if key != "$ref"}}
    kept = {key: value for key, value in schema.items() if key not in {"title", "default", "properties"}}
    if "properties" in schema:
        kept["properties"] = {
            name: _inlined(field, sections, f"{path}{name}.")
            for name, field in schema["properties"].items()
            if f"{path}{name}" not in OWNED_BY_CHART and not _is_secret(field)
        }
    if "items" in schema:
        kept["items"] = _inlined(schema["items"], sections, f"{path}[].")
    return kept


def _is_secret(field: dict[str, Any]) -> bool:
    """Secrets come from the environment: a ConfigMap is no place for them."""
    return bool(field.get("writeOnly", False))


def refreshed(text: str) -> str:
    """The chart's schema with its settings part replaced."""
    schema = json.loads(text)
    schema["$defs"]["settings"] = settings_schema()
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    committed = SCHEMA.read_text()
    fresh = refreshed(committed)
    if "--check" not in sys.argv[1:]:
        SCHEMA.write_text(fresh)
    elif fresh != committed:
        print(f"stale: {SCHEMA.name}; run 'python scripts/generate_values_schema.py' and commit", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
