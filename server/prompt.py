"""From messages to prompt token ids, and from optional sampling fields to sampling as applied."""

import asyncio
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

from jinja2.exceptions import TemplateError
from transformers import AutoTokenizer, TokenizersBackend
from transformers.utils.chat_template_utils import render_jinja_template

from foldback.v1 import chat_pb2
from server.engines.base import Sampling
from server.status import invalid
from settings.server import ServerSettings

# One text at a time leaves nothing to share out, and waking the tokenizer's threads costs half as much as the tokens.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROLE_NAMES = {chat_pb2.ROLE_SYSTEM: "system", chat_pb2.ROLE_USER: "user", chat_pb2.ROLE_ASSISTANT: "assistant"}

INLINE_CHARS = 2000
"""Tokenized in place: a thread's own cost, 0.4 ms of CPU, is more than theirs."""


class PromptBuilder:
    """The model's chat template and limits. Thread-safe once made."""

    def __init__(self, model: str, settings: ServerSettings, max_model_len: int) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(model)
        if not self._tokenizer.chat_template:
            raise ValueError(f"model.name={model}: has no chat template; choose an instruct model")
        self._ids = _ids_of(self._tokenizer)
        # Looked up once: for a short prompt transformers takes as long to find these as to fill the template in.
        self._template: str = self._tokenizer.get_chat_template()
        self._special_tokens: dict[str, Any] = dict(self._tokenizer.special_tokens_map)
        control = [token.content for token in self._tokenizer.added_tokens_decoder.values() if token.special]
        self._control = re.compile("|".join(map(re.escape, control)) or r"(?!)")
        self._settings = settings
        self._max_model_len = max_model_len

    def token_ids(self, messages: Sequence[chat_pb2.Message], field: str = "messages") -> tuple[int, ...]:
        """The prompt up to where the assistant speaks. Raises Refused (INVALID_ARGUMENT).

        A control token that somebody has typed, such as <|im_end|>, is words: nobody ends their own turn and begins one
        of the system's. An invisible word joiner after its first character keeps the tokenizer from taking it for more.
        """
        turns = [
            {"role": ROLE_NAMES[message.role], "content": self._control.sub(_as_words, message.content)}
            for message in messages
        ]
        try:
            [text], _ = render_jinja_template(
                [turns], chat_template=self._template, add_generation_prompt=True, **self._special_tokens
            )
        except TemplateError as error:
            raise invalid([(field, f"the model's chat template refuses them: {error}")]) from error
        ids = self._ids(text)
        if len(ids) >= self._max_model_len:
            raise invalid(
                [(field, f"{len(ids)} prompt tokens leave no room for an answer in {self._max_model_len}; shorten")]
            )
        return ids

    async def token_ids_soon(self, messages: Sequence[chat_pb2.Message]) -> tuple[int, ...]:
        """`token_ids`; in a thread where it would hold up other calls for over a millisecond or so."""
        if sum(len(message.content) for message in messages) <= INLINE_CHARS:
            return self.token_ids(messages)
        return await asyncio.to_thread(self.token_ids, messages)

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of plain text, no special tokens added."""
        return self._ids(text)

    def sampling(self, asked: chat_pb2.Sampling, prompt_tokens: int) -> Sampling:
        """Every field set: what was asked, else the server's default; max_tokens cut to what fits after the prompt."""
        given, defaults = asked.HasField, self._settings
        max_tokens = asked.max_tokens if given("max_tokens") else defaults.default_max_tokens
        return Sampling(
            temperature=asked.temperature if given("temperature") else defaults.default_temperature,
            top_p=asked.top_p if given("top_p") else defaults.default_top_p,
            top_k=asked.top_k if given("top_k") else defaults.default_top_k,
            max_tokens=min(max_tokens, self._max_model_len - prompt_tokens),
            stop=tuple(asked.stop),
            seed=asked.seed if given("seed") else None,
        )


def _as_words(control: re.Match[str]) -> str:
    return f"{control[0][0]}\N{WORD JOINER}{control[0][1:]}"


def _ids_of(tokenizer: Any) -> Callable[[str], tuple[int, ...]]:
    """From text to ids, no special tokens added: by the Rust tokenizer alone, where it is all that transformers would
    call. What stands around it costs more than the tokens of a short prompt."""
    tokenizer("")  # sets the Rust tokenizer up: no truncation, no padding, whatever its file says
    if type(tokenizer)._encode_plus is not TokenizersBackend._encode_plus:
        return lambda text: tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    rust = tokenizer.backend_tokenizer
    return lambda text: tuple(rust.encode_batch_fast([text], add_special_tokens=False)[0].ids)
