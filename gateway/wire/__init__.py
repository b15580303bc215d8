"""Codecs: bytes of the public schemas to canonical requests and events, and back. No I/O, no clock, no event loop.

`sse` frames event streams. `openai_chat_request` reads a client's body and writes the backend's, `openai_chat_answer`
and `openai_chat_stream` read what a backend answers, `openai_chat_encode` writes what the client gets; `openai_chat`
gathers them under one name. `json_body` holds the rules that every JSON body from outside must keep.

Where client and backend speak the same schema, bytes pass through as they came: only what accounting needs is read.
Nothing in here decides, retries or waits.
"""
