"""Policy versions as a table or as JSON."""

import sys
from datetime import UTC

from google.protobuf.json_format import MessageToJson
from google.protobuf.timestamp_pb2 import Timestamp
from rich.text import Text

from console.terminal import out, table
from foldback.v1 import policy_pb2 as pb

STYLES = {
    pb.POLICY_STATE_ACTIVE: "bold green",
    pb.POLICY_STATE_CANARY: "yellow",
    pb.POLICY_STATE_REJECTED: "red",
    pb.POLICY_STATE_ROLLED_BACK: "red",
    pb.POLICY_STATE_RETIRED: "dim",
}
SHOWN_FIGURES = 3


def print_json(listed: pb.ListPoliciesResponse) -> None:
    sys.stdout.write(MessageToJson(listed, preserving_proto_field_name=True) + "\n")


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
            Text(figures(policy)),
            Text(policy.reason, style="dim"),
        )
    out.print(rows)
    out.print(f"\ntraining is {training_name(listed.training_state)}", style="dim")


def short_version(version: str) -> str:
    """p000012-3fa9c1d2 as p12: enough to tell versions apart by eye."""
    number = version.partition("-")[0].removeprefix("p")
    return f"p{int(number)}" if number.isdecimal() else version or "–"


def state_name(state: "pb.PolicyState.ValueType") -> str:
    return pb.PolicyState.Name(state).removeprefix("POLICY_STATE_").lower()


def training_name(state: "pb.TrainingState.ValueType") -> str:
    return pb.TrainingState.Name(state).removeprefix("TRAINING_STATE_").lower()


def local_time(time: Timestamp) -> str:
    if not time.ToNanoseconds():
        return "–"
    return time.ToDatetime(tzinfo=UTC).astimezone().strftime("%d %b %H:%M:%S")


def figures(policy: pb.Policy) -> str:
    """The first few figures by name."""
    shown = sorted(policy.figures.items())[:SHOWN_FIGURES]
    more = len(policy.figures) - len(shown)
    return ", ".join(f"{name} {value:.3g}" for name, value in shown) + (f", +{more}" if more else "")
