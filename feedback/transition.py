"""A policy's move as it goes to the log, whoever made it: a server, the trainer, an operator."""

import uuid

from feedback.event import Event, build_event
from feedback.topics import POLICIES
from foldback.v1 import policy_pb2

TRANSITION_TYPE = "foldback.v1.PolicyTransition"


def transition_event(transition: policy_pb2.PolicyTransition) -> Event:
    """By version, as all tenants are served by it."""
    return build_event(
        POLICIES,
        transition.version,
        transition,
        # Moves of one entry share its sequence number; the version tells them apart.
        event_id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{transition.sequence}/{transition.version}")),
        type=TRANSITION_TYPE,
        tenant="",
    )
