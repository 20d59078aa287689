"""Several answers to one question, read blind and put in order."""

from rich.panel import Panel
from rich.text import Text

from console import votes
from console.commands.common import Session
from console.ranking import NONE, RankingError, example, format_ranking, parse_ranking
from console.reading import Left, read_line
from console.terminal import EMPTY_ANSWER, out
from foldback.v1 import chat_pb2


def ask_for_ranking(
    session: Session, question: str, candidates: int, temperature: float | None, max_tokens: int | None
) -> None:
    """Serve, show in display order, read an order, send it."""
    rater_id = session.settings.console.rater_id
    request = chat_pb2.CreateChatRequest(
        messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content=question)],
        sampling=chat_pb2.Sampling(temperature=temperature, max_tokens=max_tokens),
        candidate_count=candidates,
        rater_id=rater_id,
        training_consent=True,
    )
    with out.status(f"waiting for {candidates} answers"):
        response = session.run(session.client.create_chat(request))
    shown = [response.candidates[index] for index in response.display_order]
    for position, candidate in enumerate(shown, start=1):
        out.print(Panel(Text(candidate.text.strip() or EMPTY_ANSWER), title=f"[bold]{position}[/]", title_align="left"))
    try:
        tiers = _read_order(len(shown))
    except Left:
        out.print("\n[dim]nothing was sent[/]")
        return
    named = [[shown[position - 1].candidate_id for position in tier] for tier in tiers or ()]
    vote = votes.ranking([response.feedback_token], rater_id, named, rejected_all=tiers is None)
    accepted = session.run(session.client.submit_feedback(vote))
    said = NONE if tiers is None else format_ranking(tiers)
    out.print(f"[green]✓[/] {said} [dim]· answers of {response.policy_version} · feedback {accepted.feedback_id}[/]")


def _read_order(count: int) -> tuple[tuple[int, ...], ...] | None:
    """Ask until the order is one; None for `none`. Raises Left."""
    while True:
        try:
            return parse_ranking(read_line(f"[dim]best first, like {example(count)}, or {NONE} ▸[/] "), count)
        except RankingError as error:
            out.print(f"[yellow]{error}[/]")
