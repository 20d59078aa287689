"""What a chat request must be before it costs anything."""

from collections.abc import Iterator, Mapping, Sequence

from foldback.v1 import chat_pb2
from server.status import Violation, invalid

MAX_CANDIDATES = 8
MAX_MESSAGES = 1024
MAX_ID_CHARS = 256
MAX_STOPS, MAX_STOP_CHARS = 8, 64
MAX_LABELS, MAX_LABEL_CHARS = 16, 128
ROLES = (chat_pb2.ROLE_SYSTEM, chat_pb2.ROLE_USER, chat_pb2.ROLE_ASSISTANT)


def check_chat(request: chat_pb2.CreateChatRequest) -> None:
    """Raises Refused (INVALID_ARGUMENT) that names every field at fault."""
    violations = [
        *check_messages(request.messages, "messages"),
        *check_sampling(request.sampling),
        *_check_ids(request),
        *_check_labels(request.labels),
    ]
    if not 0 <= request.candidate_count <= MAX_CANDIDATES:
        violations.append(("candidate_count", f"{request.candidate_count} is not within 1 to {MAX_CANDIDATES}"))
    if violations:
        raise invalid(violations)


def check_messages(messages: Sequence[chat_pb2.Message], field: str) -> Iterator[Violation]:
    if not messages:
        yield field, "is empty; send at least one message from the user"
        return
    if len(messages) > MAX_MESSAGES:
        yield field, f"{len(messages)} messages; at most {MAX_MESSAGES}"
        return
    for index, message in enumerate(messages):
        if message.role not in ROLES:
            yield f"{field}[{index}].role", f"{message.role} is no role; use SYSTEM, USER or ASSISTANT"
        elif message.role == chat_pb2.ROLE_SYSTEM and index:
            yield f"{field}[{index}].role", "SYSTEM may stand only first"
        if not message.content:
            yield f"{field}[{index}].content", "is empty"
    if messages[-1].role in ROLES and messages[-1].role != chat_pb2.ROLE_USER:
        yield f"{field}[{len(messages) - 1}].role", "the last message must be the USER's"


def check_sampling(sampling: chat_pb2.Sampling) -> Iterator[Violation]:
    """Absent fields take defaults later; what is there must be in range. Comparisons also refuse NaN."""
    if sampling.HasField("temperature") and not 0 <= sampling.temperature <= 2:
        yield "sampling.temperature", f"{sampling.temperature:g} is not within 0 to 2"
    if sampling.HasField("top_p") and not 0 < sampling.top_p <= 1:
        yield "sampling.top_p", f"{sampling.top_p:g} is not above 0 and at most 1"
    if sampling.HasField("top_k") and sampling.top_k < 0:
        yield "sampling.top_k", f"{sampling.top_k} is negative; 0 keeps the whole vocabulary"
    if sampling.HasField("max_tokens") and sampling.max_tokens < 1:
        yield "sampling.max_tokens", f"{sampling.max_tokens} is not at least 1"
    if sampling.HasField("seed") and sampling.seed < 0:
        yield "sampling.seed", f"{sampling.seed} is negative"
    if len(sampling.stop) > MAX_STOPS:
        yield "sampling.stop", f"{len(sampling.stop)} stop strings; at most {MAX_STOPS}"
    for index, stop in enumerate(sampling.stop):
        if not 1 <= len(stop) <= MAX_STOP_CHARS:
            yield f"sampling.stop[{index}]", f"{len(stop)} characters; 1 to {MAX_STOP_CHARS}"


def _check_ids(request: chat_pb2.CreateChatRequest) -> Iterator[Violation]:
    for field in ("request_id", "conversation_id", "rater_id", "regenerate_of", "policy_version"):
        length = len(getattr(request, field))
        if length > MAX_ID_CHARS:
            yield field, f"{length} characters; at most {MAX_ID_CHARS}"


def _check_labels(labels: Mapping[str, str]) -> Iterator[Violation]:
    if len(labels) > MAX_LABELS:
        yield "labels", f"{len(labels)} labels; at most {MAX_LABELS}"
    for name, value in labels.items():
        if max(len(name), len(value)) > MAX_LABEL_CHARS:
            yield "labels", f"{name[:20]!r}: name and value have at most {MAX_LABEL_CHARS} characters"
