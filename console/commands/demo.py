"""`foldback demo`"""

from pathlib import Path
from typing import Annotated

import typer

from console.commands.common import Hostile, LabelNoise, Taste, persona_called


def demo(
    persona: Taste = "second_person",
    minutes: Annotated[float, typer.Option(min=0.1, help="The longest it may learn.")] = 15.0,
    full: Annotated[bool, typer.Option("--full", help="Learn to the end even when the targets are met.")] = False,
    rate: Annotated[float, typer.Option(min=0.001, help="Conversations per second of the simulated users.")] = 0.65,
    users: Annotated[int, typer.Option(min=1, help="Concurrent simulated users.")] = 8,
    candidates: Annotated[int, typer.Option(min=2, max=8, help="Answers to each question.")] = 4,
    max_tokens: Annotated[int, typer.Option(min=1, help="Length limit of an answer.")] = 40,
    seed: Annotated[int, typer.Option(help="Whose coin tosses.")] = 0,
    label_noise: LabelNoise = 0.0,
    hostile: Hostile = 0,
    out: Annotated[Path, typer.Option(help="Where demo.png and demo.json go.")] = Path("."),
    scratch: Annotated[
        Path | None, typer.Option(help="Data folder to use and keep; a temporary one, removed at the end, if left out.")
    ] = None,
    running: Annotated[
        bool, typer.Option("--running", help="Use the Foldback that console.address names instead of starting one.")
    ] = False,
) -> None:
    """Watch the policy learn: simulated users with a taste that it does not know teach it while it serves them.

    Starts everything on a scratch folder and free ports, measures how much the base policy's answers to held-out
    questions please the persona, lets the users rate, and measures again after every swap. Prints the curve and a
    verdict for each target, and writes demo.png and demo.json. The exit code is 0 only if all targets hold.

    Examples:
        foldback demo
        foldback demo --persona formal --full --out results
    """
    from console.demo import Plan, run_demo
    from console.simulate import Crowd

    crowd = Crowd(
        persona_called(persona),
        users,
        rate,
        candidates,
        max_tokens,
        seed=seed,
        together=True,
        label_noise=label_noise,
        hostile=hostile,
    )
    holds = run_demo(Plan(crowd, minutes * 60, full, out, scratch, running))
    raise typer.Exit(0 if holds else 1)
