"""Writes docs/api.md and docs/events.md from the protos and their comments. `--check` says whether they are fresh."""

import sys
from pathlib import Path

from feedback.topics import all_topics
from scripts.proto_comments import Group, read
from settings.feedback import FeedbackSettings

DOCS = Path(__file__).parents[1] / "docs"
MADE = "Made by `python -m scripts.document_api` from the protos and their comments; a test keeps it fresh.\n"

API = f"""\
# API

Package `foldback.v1` ([proto/foldback/v1](../proto/foldback/v1/chat.proto)). ChatService and FeedbackService answer on
port 50051, PolicyService and RolloutService on the admin port 50052; both have `grpc.health.v1` and reflection, so
grpcurl needs no files.

{MADE}
## Failures

They are gRPC status codes with `google.rpc` details, never messages in a stream.

| code | when | what helps |
|---|---|---|
| `INVALID_ARGUMENT` | fields are refused, BadRequest names each; or the bytes are no such message | correct it |
| `UNAUTHENTICATED` | the port asks for an API key, and there is none or an unknown one | `authorization: Bearer KEY` |
| `PERMISSION_DENIED` | a feedback token that is forged or another tenant's | send the token that came with the answer |
| `FAILED_PRECONDITION` | the token has expired; the version cannot become active or be served | ErrorInfo says which |
| `NOT_FOUND` | no such version or feedback | |
| `RESOURCE_EXHAUSTED` | too many calls at once, a quota is used up, or a full spool | wait as long as RetryInfo says |
| `UNAVAILABLE` | loading, draining, or neither broker nor spool | try again, with the same `request_id` |
| `DEADLINE_EXCEEDED`, `CANCELLED` | the caller's time or patience was over | the engine's place is freed at once |

ErrorInfo's `reason` is a stable word for programs (`QUEUE_FULL`, `TOKEN_EXPIRED`, `MALFORMED_REQUEST` …).

## Connections

A call without a deadline gets `server.default_deadline_s`. Whoever cancels, runs into a deadline or breaks off frees
the engine's place within a second; a client that vanished without a word does after `server.keepalive_time_s` and
`server.keepalive_timeout_s`. A client may ping once a minute to keep a long stream open. When a connection is
`server.max_connection_age_s` old, its calls finish on it and new ones go to a new one: gRPC does that by itself, and no
call fails of it.

## A chat and a thumb

With the Python package of this repository:

```python
import grpc
from foldback.v1 import chat_pb2, chat_pb2_grpc, feedback_pb2, feedback_pb2_grpc

with grpc.insecure_channel("127.0.0.1:50051") as channel:
    question = chat_pb2.Message(role=chat_pb2.ROLE_USER, content="What is tea?")
    request = chat_pb2.CreateChatRequest(messages=[question], rater_id="ann", training_consent=True)
    answer = chat_pb2_grpc.ChatServiceStub(channel).CreateChat(request)
    print(answer.candidates[0].text)
    thumb = feedback_pb2.Feedback(
        feedback_tokens=[answer.feedback_token],
        rater_id="ann",
        source=feedback_pb2.FEEDBACK_SOURCE_END_USER,
        candidate_id=answer.candidates[0].candidate_id,
        thumbs=feedback_pb2.THUMBS_UP,
    )
    accepted = feedback_pb2_grpc.FeedbackServiceStub(channel).SubmitFeedback(
        feedback_pb2.SubmitFeedbackRequest(request_id="ann-0001", feedback=thumb)
    )
    print(accepted.feedback_id, feedback_pb2.Durability.Name(accepted.durability))
```
"""

EVENTS = f"""\
# Events

What Foldback writes to Kafka and reads from it: protobuf values ([events.proto](../proto/foldback/v1/events.proto)) in
CloudEvents 1.0 binary mode. Read them with any Kafka client and the generated code of `foldback.v1`.

{MADE}
## Topics

"""

ENVELOPE = """
Records of one conversation share a partition: key and partition count alike. The broker stamps the time of arrival
(`LogAppendTime`), so a client's clock decides nothing.

## Headers

| header | what |
|---|---|
| `ce_id` | Names the fact, not the attempt: what is sent twice is the same event. Readers keep the first. |
| `ce_type` | The message, e.g. `foldback.v1.FeedbackRecorded`. |
| `ce_source`, `ce_specversion`, `ce_time` | As CloudEvents has them. |
| `ce_tenant` | Whose it is; empty where it is everybody's, as a policy is. |
| `content-type` | `application/protobuf` |

A reader skips what it does not know: fields are added, never renumbered (`buf breaking`); a change that cannot be made
so gets a topic of its own, `.v2`.
"""

CARRIED = {
    "foldback.responses.v1": ("ResponseRecorded", "conversation_id"),
    "foldback.feedback.v1": ("FeedbackRecorded", "conversation_id"),
    "foldback.feedback.dlq.v1": ("DeadLetter", "the original's"),
    "foldback.policies.v1": ("PolicyTransition ([api.md](api.md#policytransition))", "policy version"),
    "foldback.erasures.v1": ("ErasureRequested", "rater_id"),
    "foldback.outcomes.v1": ("FeedbackOutcome", "feedback_id"),
}


def api() -> str:
    parts = [API]
    for name in ("chat", "feedback", "policy", "rollout"):
        file = read(name)
        parts += [
            f"\n## {service.name}\n\n{service.meaning}\n\n" + _table(service, "method", "call")
            for service in file.services()
        ]
        parts += [_section(group, "field", "type") for group in file.messages() if group.entries]
        parts += [_section(group, "value", "number") for group in file.enums()]
    return "".join(parts)


def events() -> str:
    rows = []
    for topic in all_topics(FeedbackSettings()):
        message, key = CARRIED[topic.name]
        kept = int(topic.config["retention.ms"]) // 86_400_000 if "retention.ms" in topic.config else 0
        rows.append(
            f"| `{topic.name}` | {message} | {key} | {topic.partitions} | {f'{kept} d' if kept else 'compacted'} |"
        )
    table = "| topic | value | key | partitions | kept |\n|---|---|---|---|---|\n" + "\n".join(rows) + "\n"
    file = read("events")
    sections = [_section(group, "field", "type") for group in file.messages()]
    sections += [_section(group, "value", "number") for group in file.enums()]
    return EVENTS + table + ENVELOPE + "\n## Messages\n" + "".join(sections)


def _section(group: Group, name: str, kind: str) -> str:
    meaning = f"{group.meaning}\n\n" if group.meaning else ""
    return f"\n### {group.name}\n\n{meaning}{_table(group, name, kind)}"


def _table(group: Group, name: str, kind: str) -> str:
    rows = [f"| `{entry.name}` | `{entry.type}` | {entry.meaning} |" for entry in group.entries]
    return "\n".join([f"| {name} | {kind} | |", "|---|---|---|", *rows]) + "\n"


PAGES = {DOCS / "api.md": api, DOCS / "events.md": events}


def main() -> int:
    stale = [path for path, page in PAGES.items() if not path.is_file() or path.read_text() != page()]
    if "--check" not in sys.argv[1:]:
        for path in stale:
            path.write_text(PAGES[path]())
    elif stale:
        names = ", ".join(path.name for path in stale)
        print(f"stale: {names}; run 'python -m scripts.document_api' and commit", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
