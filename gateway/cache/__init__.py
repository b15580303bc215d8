"""Answers to identical prompts.

Main types: `prompts.PromptCache`, `rule.CacheRule` (what a route says), `control.CacheControl` (what a client says).
A cache that fails is a cache that misses: nothing in here raises, or delays a request beyond the store's time limit.
Whether a request may be cached at all is not decided here, but by policy.
"""
