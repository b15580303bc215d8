"""A request becomes prompt tokens: the model's chat template, the tokenizer, and the limits of both.

A client's text must not speak for the system: a control word in a message (`<|im_end|>`) is read as plain text, not as
a control token. Messages that hold one go through the template as placeholders, and are tokenized apart.

Runs in a thread of its own, beside the decode loop: the tokenizer takes a millisecond for 2 kB.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Sequence
from typing import NoReturn, Protocol

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gateway.edge.job import Prompt
from gateway.edge.json_grammar import grammar_of
from gateway.edge.protocol import Submit
from gateway.edge.template import Template
from gateway.errors import EdgeUnsuitable
from gateway.inference.request import Message, Sampling

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_RENAMED_ROLES = {"developer": "system", "function": "tool"}
_BYTES_PER_TOKEN = 16
"""More than any real text has on average (English 4.2): longer prompts are refused without tokenizing them."""
MOST_TOP_LOGPROBS = 20
"""As many alternatives to a token as OpenAI's API tells."""
_MOST_STOPS = 16
_STOP_CHARACTERS = 256
_MOST_MESSAGES = 4_096
_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""What llama.cpp takes for a model file without a template."""


class Vocabulary(Protocol):
    """What preparation needs of a model."""

    n_ctx: int
    template: Template
    control_words: tuple[str, ...]

    def tokenize(self, text: str, *, special: bool, first: bool) -> list[int]:
        """Tokens of the text."""


class Preparation:
    """Makes prompts for one model. Not for several threads at once."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, autoescape=False)
        environment.globals["raise_exception"] = _refuse
        self._template = environment.from_string(vocabulary.template.source or _CHATML)
        words = sorted(vocabulary.control_words, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, words))) if words else None

    def prompt(self, request: Submit) -> Prompt:
        """What goes into the model. Raises EdgeUnsuitable, which says what the edge cannot do with the request."""
        self._check(request)
        size = sum(len(message.text) for message in request.messages)
        if size > self._vocabulary.n_ctx * _BYTES_PER_TOKEN:
            raise EdgeUnsuitable(f"the prompt has {size} characters: too long for {self._vocabulary.n_ctx} tokens")
        tokens = self._tokens(request.messages)
        if len(tokens) + 1 > self._vocabulary.n_ctx:
            raise EdgeUnsuitable(
                f"the prompt has {len(tokens)} tokens, and prompt and answer together may have {self._vocabulary.n_ctx}"
            )
        return Prompt(tokens, grammar_of(request.json_schema) if request.json_schema else "")

    def most_tokens(self, request: Submit, prompt_tokens: int) -> int:
        """Tokens that the answer may have: what was asked for, as far as it fits behind the prompt."""
        return min(request.max_tokens, self._vocabulary.n_ctx - prompt_tokens)

    def _check(self, request: Submit) -> None:
        if not request.messages or len(request.messages) > _MOST_MESSAGES:
            raise EdgeUnsuitable(f"the edge answers 1 to {_MOST_MESSAGES} messages, not {len(request.messages)}")
        if request.max_tokens < 1:
            raise EdgeUnsuitable(f"max_tokens is {request.max_tokens}, and the edge makes at least 1 token")
        for message in request.messages:
            if message.role not in _ROLES:
                raise EdgeUnsuitable(f"the edge knows no role {message.role[:40]!r}")
        _check_sampling(request.sampling)

    def _tokens(self, messages: Sequence[Message]) -> list[int]:
        if self._control and any(self._control.search(message.text) for message in messages):
            return self._tokens_apart(messages)
        text = self._render([(message.role, message.text) for message in messages])
        return self._vocabulary.tokenize(text, special=True, first=self._needs_start(text))

    def _tokens_apart(self, messages: Sequence[Message]) -> list[int]:
        """Template and messages tokenized apart, control tokens only from the template."""
        mark = secrets.token_hex(16)
        text = self._render([(message.role, f"{mark}{index}.") for index, message in enumerate(messages)])
        tokens: list[int] = []
        for index, part in enumerate(re.split(rf"{mark}(\d+)\.", text)):
            if index % 2:
                tokens += self._vocabulary.tokenize(messages[int(part)].text, special=False, first=False)
            elif part:
                tokens += self._vocabulary.tokenize(part, special=True, first=not index and self._needs_start(part))
        return tokens

    def _needs_start(self, text: str) -> bool:
        bos = self._vocabulary.template.bos
        return not (bos and text.startswith(bos))

    def _render(self, messages: list[tuple[str, str]]) -> str:
        template = self._vocabulary.template
        try:
            return self._template.render(
                messages=[{"role": _RENAMED_ROLES.get(role, role), "content": text} for role, text in messages],
                add_generation_prompt=True,
                bos_token=template.bos,
                eos_token=template.eos,
            )
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise EdgeUnsuitable(f"the model's chat template does not take these messages: {error}") from error


def _check_sampling(sampling: Sampling) -> None:
    numbers = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
    }
    for name, value in numbers.items():
        if value is not None and not math.isfinite(value):
            raise EdgeUnsuitable(f"{name} is {value}, which is no number to sample by")
    if not 0 <= (sampling.top_logprobs or 0) <= MOST_TOP_LOGPROBS:
        raise EdgeUnsuitable(f"top_logprobs is {sampling.top_logprobs}, and the edge tells 0 to {MOST_TOP_LOGPROBS}")
    if len(sampling.stop) > _MOST_STOPS or any(len(stop) > _STOP_CHARACTERS for stop in sampling.stop):
        raise EdgeUnsuitable(f"the edge takes up to {_MOST_STOPS} stop strings of up to {_STOP_CHARACTERS} characters")


def _refuse(message: object) -> NoReturn:
    """What templates call to refuse messages."""
    raise jinja2.TemplateError(str(message))
