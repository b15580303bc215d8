"""Codecs: bytes of the public schemas to canonical requests and events, and back. No I/O, no clock, no event loop.

One group of files for each schema, gathered under its name: `openai_chat` (OpenAI's chat completions) and
`anthropic_messages` (Anthropic's Messages). `_request` reads a client's body, `_encode` writes what the client gets,
`_error` its errors. A schema that backends speak has also what reads their answers (`_answer`, `_stream`), turns them
into deltas (`_canonical`) and writes other schemas' requests (`_write`). Shared: `sse` frames event streams,
`json_body` and `fields` hold the rules for bodies, `flattened`, `collected` and `draft_frame` what all encoders need.
`openai_files` has OpenAI's files and batches.

Where client and backend speak the same schema, bytes pass through as they came: only what accounting needs is read.
Else a request goes through its `Conversation` and an answer through deltas (`inference`): a hub, not a matrix.
Nothing in here decides, retries or waits.
"""
