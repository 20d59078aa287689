"""`foldback simulate`"""

from typing import Annotated

import typer

from console.commands.common import Hostile, LabelNoise, Taste, persona_called


def simulate(
    persona: Taste = "second_person",
    users: Annotated[int, typer.Option(min=1, help="Concurrent users.")] = 4,
    rate: Annotated[float, typer.Option(min=0.001, help="Conversations started per second, all together.")] = 1.0,
    candidates: Annotated[int, typer.Option(min=1, max=8, help="Answers to each question.")] = 4,
    max_tokens: Annotated[int, typer.Option(min=1, help="Length limit of an answer.")] = 40,
    conversations: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    seed: Annotated[int, typer.Option(help="Whose coin tosses.")] = 0,
    label_noise: LabelNoise = 0.0,
    hostile: Hostile = 0,
) -> None:
    """Let simulated users ask, read and rate, through the public API alone.

    Each persona has a taste that the policy does not know; they rank and thumb by it, with noise, and often say
    nothing. Runs until Ctrl-C. The exit code is 1 if any request failed.

    Examples:
        foldback simulate
        foldback simulate --persona brief --users 8 --rate 0.5
        foldback simulate --conversations 100    stops by itself
    """
    from console.commands.common import load_settings
    from console.simulate import Crowd
    from console.simulate_view import run_simulation

    crowd = Crowd(
        persona_called(persona),
        users,
        rate,
        candidates,
        max_tokens,
        seed=seed,
        label_noise=label_noise,
        hostile=hostile,
    )
    run_simulation(load_settings(), crowd, conversations)
