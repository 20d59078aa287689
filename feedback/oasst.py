"""OpenAssistant conversation trees (Köpf et al. 2023, arXiv:2304.07327) as events: rankings and thumbs of real people.

A prompt's replies become one response with that many candidates; `rank` (0 is best) becomes a ranking, each "+1" and
"-1" a thumb of a rater of its own. Ids and times follow from the file: importing it again adds nothing.
"""

import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from feedback.event import Event
from feedback.response import response_event
from feedback.submission import build_record, feedback_event, feedback_id
from foldback.v1 import chat_pb2, events_pb2, feedback_pb2

POLICY_VERSION = "import:oasst"
PUBLISHED = datetime(2023, 4, 12, tzinfo=UTC).timestamp()
"""When the data set appeared: imported prompts count as older than any that is served here."""

_ROLES = {"prompter": chat_pb2.ROLE_USER, "assistant": chat_pb2.ROLE_ASSISTANT}
_THUMBS = {"+1": feedback_pb2.THUMBS_UP, "-1": feedback_pb2.THUMBS_DOWN}

Node = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ImportEvent:
    """One event and what it counts as: response, ranking, thumbs_up or thumbs_down."""

    event: Event
    counts_as: str


def read_trees(path: Path) -> list[Node]:
    """Raises ValueError naming the line that is no conversation tree."""
    trees = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            tree = json.loads(line)
            tree["message_tree_id"], tree["prompt"]["replies"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path}, line {number}: not an OpenAssistant conversation tree") from None
        trees.append(tree)
    return trees


def import_events(tree: Node, tenant: str) -> Iterator[ImportEvent]:
    """Each response of the tree, followed by what people thought of it. One conversation_id for the whole tree."""
    yield from _prompt_events(tree["prompt"], [], tree["message_tree_id"], tenant)


def count(events: Sequence[ImportEvent]) -> Counter[str]:
    return Counter(event.counts_as for event in events)


def _prompt_events(message: Node, before: list[chat_pb2.Message], tree_id: str, tenant: str) -> Iterator[ImportEvent]:
    messages = [*before, chat_pb2.Message(role=_ROLES[message["role"]], content=message["text"])]
    if message["role"] == "prompter" and message["replies"]:
        claims = events_pb2.TokenClaims(
            tenant=tenant,
            conversation_id=tree_id,
            response_id=message["message_id"],
            candidate_ids=[reply["message_id"] for reply in message["replies"]],
            policy_version=POLICY_VERSION,
        )
        claims.issue_time.FromSeconds(int(PUBLISHED))
        yield _response_event(message, messages, claims)
        yield from _ranking_event(message["replies"], claims)
        for reply in message["replies"]:
            yield from _thumb_events(reply, claims)
    for reply in message["replies"]:
        yield from _prompt_events(reply, messages, tree_id, tenant)


def _response_event(prompt: Node, messages: list[chat_pb2.Message], claims: events_pb2.TokenClaims) -> ImportEvent:
    response = events_pb2.ResponseRecorded(
        tenant=claims.tenant,
        response_id=claims.response_id,
        conversation_id=claims.conversation_id,
        policy_version=POLICY_VERSION,
        messages=messages,
        candidates=[
            events_pb2.CandidateRecord(
                candidate_id=reply["message_id"],
                text=reply["text"],
                finish_reason=chat_pb2.FINISH_REASON_STOP,
                text_sha256=hashlib.sha256(reply["text"].encode()).digest(),
            )
            for reply in prompt["replies"]
        ],
        display_order=range(len(prompt["replies"])),
        training_consent=True,
        labels={"source": "oasst", "message_tree_id": claims.conversation_id},
    )
    response.serve_time.FromSeconds(int(PUBLISHED))
    return ImportEvent(response_event(response), "response")


def _ranking_event(replies: Sequence[Node], claims: events_pb2.TokenClaims) -> Iterator[ImportEvent]:
    ranked = sorted((reply for reply in replies if reply.get("rank") is not None), key=lambda reply: reply["rank"])
    if len(ranked) < 2:
        return
    feedback = feedback_pb2.Feedback(
        rater_id="oasst:annotators",
        source=feedback_pb2.FEEDBACK_SOURCE_ANNOTATOR,
        ranking=feedback_pb2.Ranking(
            tiers=[feedback_pb2.Tier(candidate_ids=[reply["message_id"]]) for reply in ranked]
        ),
    )
    yield ImportEvent(_feedback_event(f"oasst:{claims.response_id}:ranking", feedback, claims), "ranking")


def _thumb_events(reply: Node, claims: events_pb2.TokenClaims) -> Iterator[ImportEvent]:
    for emoji, thumbs in _THUMBS.items():
        for vote in range(reply.get("emojis", {}).get(emoji, 0)):
            name = f"oasst:{reply['message_id']}:{emoji}:{vote}"
            feedback = feedback_pb2.Feedback(
                rater_id=str(uuid.uuid5(uuid.NAMESPACE_OID, name)),
                source=feedback_pb2.FEEDBACK_SOURCE_END_USER,
                candidate_id=reply["message_id"],
                thumbs=thumbs,
            )
            counts_as = "thumbs_up" if emoji == "+1" else "thumbs_down"
            yield ImportEvent(_feedback_event(name, feedback, claims), counts_as)


def _feedback_event(name: str, feedback: feedback_pb2.Feedback, claims: events_pb2.TokenClaims) -> Event:
    record = build_record(feedback_id(claims.tenant, name), claims.tenant, feedback, [claims], now=PUBLISHED)
    return feedback_event(record)
