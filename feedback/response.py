"""An answer that was given, as an event: one shape, whoever writes it."""

from feedback.event import Event, build_event
from feedback.topics import RESPONSES
from foldback.v1 import events_pb2

RESPONSE_TYPE = "foldback.v1.ResponseRecorded"


def response_event(response: events_pb2.ResponseRecorded) -> Event:
    """Keyed by its conversation; the event's id is the response's."""
    return build_event(
        RESPONSES,
        response.conversation_id,
        response,
        event_id=response.response_id,
        type=RESPONSE_TYPE,
        tenant=response.tenant,
    )
