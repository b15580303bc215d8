"""Passages of a platform's own documents, added to prompts, and their search for clients.

Main types: `stores.Retrieval` (what the pipeline and the API ask), `rule.RetrievalRule` and `rule.PassageStore` (what
policy says), `passage.Passage`. Kinds of stores: `files` (an index that `indexing` builds), `http`, `qdrant`.
Whether a request may use a store is not decided here, but by policy; how passages stand in a prompt, `wire` says.
"""
