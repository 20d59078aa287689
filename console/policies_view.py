"""Policy versions as a table or as JSON."""

import sys
from datetime import UTC

from google.protobuf.json_format import MessageToJson
from google.protobuf.timestamp_pb2 import Timestamp
from rich.text import Text

from console.names import short_version
from console.terminal import out, table
from console.verdict import FIGURES, reasons, told
from foldback.v1 import policy_pb2 as pb

STYLES = {
    pb.POLICY_STATE_ACTIVE: "bold green",
    pb.POLICY_STATE_CANARY: "yellow",
    pb.POLICY_STATE_REJECTED: "red",
    pb.POLICY_STATE_ROLLED_BACK: "red",
    pb.POLICY_STATE_RETIRED: "dim",
}
SHOWN_FIGURES = 3


def print_json(message: pb.ListPoliciesResponse | pb.Policy) -> None:
    sys.stdout.write(MessageToJson(message, preserving_proto_field_name=True) + "\n")


def print_table(listed: pb.ListPoliciesResponse) -> None:
    """Newest first; an arrow marks the version this replica serves."""
    if not listed.policies:
        out.print("no policy version yet: the server publishes the base model when it first starts")
        return
    rows = table("", "version", "state", "parent", "created", "figures", "reason")
    for column in rows.columns[:-2]:
        column.no_wrap = True
    for policy in listed.policies:
        rows.add_row(
            Text("▶" if policy.version == listed.serving_version else "", style="bold green"),
            Text(policy.version),
            Text(state_name(policy.state), style=STYLES.get(policy.state, "")),
            Text(short_version(policy.parent), style="dim"),
            Text(local_time(policy.create_time), style="dim"),
            Text(", ".join(told(policy.figures, SHOWN_FIGURES))),
            Text("; ".join(reasons(policy.reason)), style="dim"),
        )
    out.print(rows)
    out.print(
        f"\ntraining is {training_name(listed.training_state)} · 'foldback policies VERSION' shows one in full",
        style="dim",
    )


def print_policy(policy: pb.Policy) -> None:
    """One version: its state, why, and every figure."""
    state = Text(state_name(policy.state).replace("_", " "), style=STYLES.get(policy.state, ""))
    out.print(Text.assemble((policy.version, "bold"), " ", state))
    parent = f"from {policy.parent}" if policy.parent else "the base model"
    out.print(f"{parent}, {local_time(policy.create_time)}", style="dim")
    for reason in reasons(policy.reason):
        out.print(Text.assemble("\n", ("why  ", "bold"), reason) if reason else "")
    if policy.figures:
        rows = table("figure", "", "name")
        known = [name for name in FIGURES if name in policy.figures]
        for name in [*known, *sorted(set(policy.figures) - set(known))]:
            title, form = FIGURES.get(name, ("", "{:.4g}"))
            value = policy.figures[name]
            rows.add_row(Text(title or name), Text(form.format(value)), Text(name if title else "", style="dim"))
        out.print()
        out.print(rows)


def state_name(state: "pb.PolicyState.ValueType") -> str:
    return pb.PolicyState.Name(state).removeprefix("POLICY_STATE_").lower()


def training_name(state: "pb.TrainingState.ValueType") -> str:
    return pb.TrainingState.Name(state).removeprefix("TRAINING_STATE_").lower()


def local_time(time: Timestamp) -> str:
    if not time.ToNanoseconds():
        return "–"
    return time.ToDatetime(tzinfo=UTC).astimezone().strftime("%d %b %H:%M:%S")
