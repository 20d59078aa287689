"""`foldback pause-training`, `foldback resume-training`"""

from typing import Annotated

import typer

Reason = Annotated[str, typer.Option(help="Kept in the life-cycle log.")]


def pause_training(reason: Reason = "asked by an operator") -> None:
    """Stop learning; serving and collecting feedback go on."""
    _set(paused=True, reason=reason)


def resume_training(reason: Reason = "asked by an operator") -> None:
    """Learn again, from all the feedback that came meanwhile."""
    _set(paused=False, reason=reason)


def _set(paused: bool, reason: str) -> None:
    from console.commands.common import Session
    from console.terminal import out
    from foldback.v1 import policy_pb2

    wanted = policy_pb2.TRAINING_STATE_PAUSED if paused else policy_pb2.TRAINING_STATE_RUNNING
    with Session() as session:
        session.run(session.client.set_training_state(wanted, reason))
    if paused:
        out.print("training is [yellow]paused[/]; 'foldback resume-training' takes it up again")
    else:
        out.print("training is [green]running[/]; 'foldback status' shows what it learns")
