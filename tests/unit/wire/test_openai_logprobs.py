"""Log-probabilities of the edge's tokens as clients of chat and of completions get them."""

import json

from gateway.inference.events import Finished, TextDelta, TokenLogprob
from gateway.inference.request import DraftWish
from gateway.wire import openai_chat, openai_completions

SAID = TokenLogprob("é".encode()[:1], -0.5, ((b"e", -0.25), ("é".encode()[:1], -0.5)))
EVENTS = [TextDelta("ab", (TokenLogprob(b"a", -1.0), TokenLogprob(b"b", -2.0))), TextDelta("", (SAID,))]
ASKED = b'{"model":"small","prompt":"x","messages":[{"role":"user","content":"x"}]}'
WRITING = {"response_id": "r", "created": 1, "model": "small", "wish": DraftWish.OFF}


def choices(codec, *events):
    """The choices of a stream's chunks, and of the whole answer, in one schema."""
    request = codec.decode_request(ASKED)
    stream, answer = codec.StreamEncoder(request=request, **WRITING), codec.AnswerEncoder(request=request, **WRITING)
    for event in (*events, Finished("stop")):
        answer.add(event)
    chunks = [json.loads(stream.encode(event)[6:])["choices"][0] for event in (*events, Finished("stop"))]
    return chunks, json.loads(answer.body())["choices"][0]


def test_chat_has_them_beside_the_text():
    """Each chunk has those of its own tokens, the whole answer all: text, bytes, figure, alternatives."""
    chunks, answer = choices(openai_chat, *EVENTS)
    content = answer["logprobs"]["content"]
    assert [token["logprob"] for token in content] == [-1.0, -2.0, -0.5]
    assert content[0] == {"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": []}
    assert content[2]["bytes"] == [0xC3]
    assert content[2]["top_logprobs"][0] == {"token": "e", "logprob": -0.25, "bytes": [101]}
    assert answer["logprobs"]["refusal"] is None
    assert [token for chunk in chunks[:2] for token in chunk["logprobs"]["content"]] == content
    assert chunks[1]["delta"] == {"content": ""}


def test_completions_have_them_in_their_own_shape():
    """Parallel lists, with the place of each token in the whole text."""
    chunks, answer = choices(openai_completions, *EVENTS)
    assert answer["logprobs"]["tokens"] == ["a", "b", "\ufffd"]
    assert answer["logprobs"]["token_logprobs"] == [-1.0, -2.0, -0.5]
    assert answer["logprobs"]["text_offset"] == [0, 1, 2]
    assert answer["logprobs"]["top_logprobs"][2] == {"e": -0.25, "\ufffd": -0.5}
    assert chunks[1]["logprobs"]["text_offset"] == [2]


def test_who_did_not_ask_has_none():
    """Chunks then have no such member; a whole answer says null, as OpenAI's do."""
    chunks, answer = choices(openai_chat, TextDelta("ab"))
    assert all("logprobs" not in chunk for chunk in chunks)
    assert answer["logprobs"] is None
