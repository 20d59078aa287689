"""An engine that answers at once: what is left to measure is the server around it."""

from collections.abc import AsyncGenerator

from server.engines.base import Delta, GenerationRequest, VersionSpan
from tests.server.bare_engine import BareEngine

WORDS = ("The", " answer", " comes", " at", " once", ",", " a", " token", " a", " time", ".")


class FakeEngine(BareEngine):
    """See server.engines.base.Engine. Each answer has `request.sampling.max_tokens` tokens, one a delta."""

    name = "fake"
    max_model_len = 2048

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        self.open += 1
        try:
            last = request.sampling.max_tokens - 1
            for position in range(last + 1):
                for index in range(request.candidate_count):
                    end = position == last
                    spans = (VersionSpan(self.version, 0, last + 1),) if end else ()
                    word = WORDS[position % len(WORDS)]
                    yield Delta(index, word, (position,), (-0.5,), "length" if end else None, spans)
        finally:
            self.open -= 1
