"""From messages to prompt token ids, and from optional sampling fields to sampling as applied."""

import asyncio
from collections.abc import Sequence

from jinja2.exceptions import TemplateError
from transformers import AutoTokenizer

from foldback.v1 import chat_pb2
from server.engines.base import Sampling
from server.status import invalid
from settings.server import ServerSettings

ROLE_NAMES = {chat_pb2.ROLE_SYSTEM: "system", chat_pb2.ROLE_USER: "user", chat_pb2.ROLE_ASSISTANT: "assistant"}

INLINE_CHARS = 2000
"""Tokenized in place: a thread's own cost, 0.4 ms of CPU, is more than theirs."""


class PromptBuilder:
    """The model's chat template and limits. Thread-safe once made."""

    def __init__(self, model: str, settings: ServerSettings, max_model_len: int) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(model)
        if not self._tokenizer.chat_template:
            raise ValueError(f"model.name={model}: has no chat template; choose an instruct model")
        self._settings = settings
        self._max_model_len = max_model_len

    def token_ids(self, messages: Sequence[chat_pb2.Message], field: str = "messages") -> tuple[int, ...]:
        """The prompt up to where the assistant speaks. Raises Refused (INVALID_ARGUMENT)."""
        turns = [{"role": ROLE_NAMES[message.role], "content": message.content} for message in messages]
        try:
            encoded = self._tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)
        except TemplateError as error:
            raise invalid([(field, f"the model's chat template refuses them: {error}")]) from error
        ids = tuple(encoded["input_ids"])
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
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def sampling(self, asked: chat_pb2.Sampling, prompt_tokens: int) -> Sampling:
        """Every field set: what was asked, else the server's default; max_tokens cut to what fits after the prompt."""
        given = {field.name: value for field, value in asked.ListFields()}
        defaults = self._settings
        return Sampling(
            temperature=given.get("temperature", defaults.default_temperature),
            top_p=given.get("top_p", defaults.default_top_p),
            top_k=given.get("top_k", defaults.default_top_k),
            max_tokens=min(given.get("max_tokens", defaults.default_max_tokens), self._max_model_len - prompt_tokens),
            stop=tuple(asked.stop),
            seed=given.get("seed"),
        )
