"""What one browser tab has said, been served and rated, whichever page of ours it shows."""

from dataclasses import dataclass, field

from console.chat import DURABILITY
from console.web.answers import Response
from console.web.ledger import Ledger
from console.web.observer import Observer
from console.web.placing import Placing
from foldback.v1 import chat_pb2, feedback_pb2

LATEST_VOTES = 50


@dataclass(slots=True)
class Turn:
    """A question and its answer."""

    question: str
    response: Response | None = None
    kept: str = ""
    """The answer as the conversation goes on with it: as served, or as the visitor would have it."""
    thumb: bool | None = None
    problem: str = ""
    ended: bool = False
    """Nothing more of the answer will come, whether it has any text or not."""


@dataclass(slots=True)
class Round:
    """One comparison of several answers to a question."""

    question: str
    response: Response
    placing: Placing
    complete: bool = False
    """All answers have ended."""
    sent: str = ""
    """What became of the ranking; "" while there is none."""


@dataclass(frozen=True, slots=True)
class Vote:
    """One feedback of this visit."""

    feedback_id: str
    what: str
    version: str


@dataclass(slots=True)
class Options:
    """How answers are drawn, and whether Foldback may learn from them."""

    system: str = ""
    temperature: float | None = None
    """None: the server's."""
    max_tokens: int = 256
    consent: bool = True
    count: int = 3
    """Answers to compare."""


@dataclass(slots=True)
class Visit:
    observer: Observer
    ledger: Ledger
    rater_id: str
    """A pseudonym; the page makes it one of this browser's own."""
    options: Options = field(default_factory=Options)
    turns: list[Turn] = field(default_factory=list)
    conversation_id: str = ""
    round: Round | None = None
    votes: list[Vote] = field(default_factory=list)
    """Newest first."""

    def request(self, question: str, count: int = 1) -> chat_pb2.CreateChatRequest:
        """The question after what was said before; several answers are asked for out of any conversation."""
        options, messages = self.options, []
        if options.system.strip():
            messages.append(chat_pb2.Message(role=chat_pb2.ROLE_SYSTEM, content=options.system.strip()))
        for turn in self.turns if count == 1 else ():
            if turn.kept:
                messages.append(chat_pb2.Message(role=chat_pb2.ROLE_USER, content=turn.question))
                messages.append(chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, content=turn.kept))
        messages.append(chat_pb2.Message(role=chat_pb2.ROLE_USER, content=question))
        return chat_pb2.CreateChatRequest(
            conversation_id=self.conversation_id if count == 1 else "",
            messages=messages,
            sampling=chat_pb2.Sampling(temperature=options.temperature, max_tokens=options.max_tokens),
            candidate_count=count,
            rater_id=self.rater_id,
            labels={"client": "web"},
            training_consent=options.consent,
        )

    async def vote(self, request: feedback_pb2.SubmitFeedbackRequest, what: str, version: str) -> str:
        """Send feedback and remember it. Returns where it is now, for people.

        Raises:
            grpc.aio.AioRpcError: it was not accepted.
        """
        response = await self.observer.client.submit_feedback(request)
        self.votes.insert(0, Vote(response.feedback_id, what, version))
        del self.votes[LATEST_VOTES:]
        return DURABILITY.get(response.durability, "accepted")

    def start_over(self) -> None:
        """Forget the conversation; what was rated stays rated."""
        self.turns.clear()
        self.conversation_id = ""
