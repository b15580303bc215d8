"""What LlamaIndex shows: plain, streamed, with drafts, with an error, and left in the middle. One JSON line each.

Runs in a virtual environment of its own, because LlamaIndex wants an older `openai` than the other tests.
"""

from __future__ import annotations

import asyncio
import json
import sys

import openai
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

URL, KEY, ASK, SLOW = sys.argv[1:]


def model_of(name: str = "large", draft: str = "off") -> OpenAILike:
    """A model as LlamaIndex' users set one up for a server that speaks OpenAI's API."""
    body = {"extra_body": {"draft": draft}}
    return OpenAILike(
        model=name, api_base=URL, api_key=KEY, is_chat_model=True, max_retries=0, additional_kwargs=body, timeout=30
    )


def say(name: str, value: object) -> None:
    """One line for the test."""
    print(json.dumps([name, value]), flush=True)


async def main() -> None:
    """All that is asked of the gateway."""
    say("openai", openai.__version__.partition(".")[0])
    for draft in ("off", "frames", "reasoning"):
        model = model_of(draft=draft)
        say(f"complete {draft}", model.complete(ASK).text)
        say(f"chat {draft}", (await model.achat([ChatMessage(role="user", content=ASK)])).message.content)
        say(f"stream {draft}", "".join([piece.delta or "" async for piece in await model.astream_complete(ASK)]))
    try:
        model_of("lerge").complete(ASK)
    except openai.NotFoundError as error:
        say("error", [error.status_code, error.code])
    async for piece in await model_of().astream_complete(SLOW):
        if piece.delta:
            break
    say("left", value=True)


asyncio.run(main())
