"""A move of the life cycle as the API and foldback.policies.v1 carry it."""

from foldback.v1 import policy_pb2
from registry.journal import Transition
from registry.lifecycle import PolicyState

STATES = {state: policy_pb2.PolicyState.Value(f"POLICY_STATE_{state.upper()}") for state in PolicyState}


def transition_message(transition: Transition) -> policy_pb2.PolicyTransition:
    message = policy_pb2.PolicyTransition(
        sequence=transition.sequence,
        version=transition.version,
        to=STATES[transition.to],
        reason=transition.reason,
        figures=transition.figures,
        actor=transition.actor,
    )
    if transition.before:
        setattr(message, "from", STATES[transition.before])  # a keyword of Python's
    message.time.FromNanoseconds(int(transition.time * 1e9))
    return message
