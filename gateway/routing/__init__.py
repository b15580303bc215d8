"""Routing: which deployments answer a request, in which mode, and why.

`decide.decide` is the one function that decides: pure, total, deterministic. The data plane, `policy explain` and the
tests run it. Around it: `candidates` (what the constraints and the request itself leave), `rank` (in which order),
`drafts` (whether a draft is made), `explain` (the whole story of one decision).
All requests at once: `prove` (invariants), `proven` (loading what keeps them), `trial` (cases), `compare` (what another
policy would change); `settled` is what a decision shares with all requests of its kind.
Main types: `decision.Decision`, `decision.Removal`. This room does no I/O and keeps no state.
"""
