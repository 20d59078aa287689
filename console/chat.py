"""A conversation in the terminal: streamed answers, each rated with one key."""

from dataclasses import dataclass

from rich.markup import escape

from console import votes
from console.commands.common import Session
from console.names import short_version
from console.reading import Left, edit, read_choice, read_line
from console.terminal import EMPTY_ANSWER, out
from foldback.v1 import chat_pb2, feedback_pb2

RATING_KEYS = "[dim][b]u[/b]p · [b]d[/b]own · [b]r[/b] another answer · [b]e[/b]dit · Enter next · [b]q[/b]uit ▸[/] "
COMPARISON_KEYS = "[dim]which is better: [b]1[/b] · [b]2[/b] · [b]=[/b] equal · Enter next ▸[/] "
DURABILITY = {
    feedback_pb2.DURABILITY_BROKER: "in the event log",
    feedback_pb2.DURABILITY_SPOOL: "on the server's disk until the event log is back",
}


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    response_id: str
    candidate_id: str
    token: str
    version: str


class Conversation:
    """The messages so far, and the loop that adds to them."""

    def __init__(
        self, session: Session, system: str, temperature: float | None, max_tokens: int | None, consent: bool
    ) -> None:
        self._session, self._consent = session, consent
        self._rater_id = session.settings.console.rater_id
        self._sampling = chat_pb2.Sampling(temperature=temperature, max_tokens=max_tokens)
        self._messages: list[chat_pb2.Message] = []
        self._conversation_id = ""
        if system:
            self._messages.append(chat_pb2.Message(role=chat_pb2.ROLE_SYSTEM, content=system))

    def talk(self) -> None:
        """Until q, or the end of the input."""
        self._session.run(self._session.client.health())  # a clear word now rather than after the first question
        learned = "what you rate is learned from" if self._consent else "nothing here is learned from"
        out.print(f"[dim]Ask anything; {learned}. Ctrl-D leaves.[/]\n")
        try:
            while self._turn():
                out.print()
        except (Left, KeyboardInterrupt):
            out.print()
        out.print("[dim]'foldback status' shows what has been learned.[/]")

    def _turn(self) -> bool:
        """One question, its answer and its rating; whether to go on."""
        question = read_line("[bold cyan]you ▸[/] ").strip()
        if not question:
            return True
        self._messages.append(chat_pb2.Message(role=chat_pb2.ROLE_USER, content=question))
        answer = self._stream()
        if answer is None:
            self._messages.pop()
            return True
        kept, go_on = self._rate(answer)
        if kept:
            self._messages.append(chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, content=kept))
        else:
            self._messages.pop()  # the server takes no empty message
        return go_on

    def _rate(self, answer: Answer) -> tuple[str, bool]:
        """Ask for a rating and send it; what stays in the conversation, and whether to go on."""
        while True:
            match read_choice(RATING_KEYS, "udreq"):
                case "u" | "d" as key:
                    self._submit(votes.thumbs(answer.token, self._rater_id, key == "u", answer.candidate_id))
                    return answer.text, True
                case "r":
                    other = self._stream(regenerate_of=answer.response_id)
                    if other is not None:
                        return self._compare(answer, other), True
                case "e":
                    text = edit(answer.text).strip()
                    if not text or text == answer.text.strip():
                        out.print("[dim]unchanged; nothing was sent[/]")
                        continue
                    self._submit(votes.demonstration(answer.token, self._rater_id, answer.candidate_id, text))
                    return text, True
                case "q":
                    return answer.text, False
                case _:
                    return answer.text, True

    def _compare(self, first: Answer, second: Answer) -> str:
        """Ask which of two answers is better and send that; the better one's text."""
        choice = read_choice(COMPARISON_KEYS, "12=")
        ids = first.candidate_id, second.candidate_id
        tiers = {"1": [[ids[0]], [ids[1]]], "2": [[ids[1]], [ids[0]]], "=": [list(ids)]}
        if choice:
            tokens = [first.token, second.token]
            self._submit(votes.ranking(tokens, self._rater_id, tiers[choice]))
        return first.text if choice == "1" else second.text

    def _submit(self, request: feedback_pb2.SubmitFeedbackRequest) -> None:
        response = self._session.run(self._session.client.submit_feedback(request))
        where = DURABILITY.get(response.durability, "accepted")
        out.print(f"[green]✓[/] [dim]{where} · feedback {response.feedback_id}[/]")

    def _stream(self, regenerate_of: str = "") -> Answer | None:
        """Print an answer as it comes; None if Ctrl-C stopped it."""
        request = chat_pb2.CreateChatRequest(
            conversation_id=self._conversation_id,
            messages=self._messages,
            sampling=self._sampling,
            rater_id=self._rater_id,
            regenerate_of=regenerate_of,
            training_consent=self._consent,
        )
        try:
            return self._session.run(self._print_answer(request))
        except KeyboardInterrupt:
            out.print(" [dim]stopped[/]")
            return None

    async def _print_answer(self, request: chat_pb2.CreateChatRequest) -> Answer:
        started, text = chat_pb2.ChatStarted(), ""
        ending = ""
        async for event in self._session.client.stream_chat(request):
            match event.WhichOneof("event"):
                case "started":
                    started = event.started
                    self._conversation_id = started.conversation_id
                    out.print(f"[bold magenta]{short_version(started.policy_version)} ▸[/] ", end="")
                case "delta":
                    text += event.delta.text
                    out.print(escape(event.delta.text), end="", soft_wrap=True)
                case "candidate_finished":
                    if event.candidate_finished.finish_reason == chat_pb2.FINISH_REASON_LENGTH:
                        ending = " [dim]… (length limit)[/]"
        out.print(ending if text else f"[dim]{EMPTY_ANSWER}[/]")
        return Answer(
            text, started.response_id, started.candidate_ids[0], started.feedback_token, started.policy_version
        )
