"""What tenants may spend, and the ledger that never lets them spend more.

Main types: `limit.Limit` and `limit.Rate` (data), `claim.Claim` (what a request may cost at most), `claim.Hold` (what
was granted, settled exactly once), `ledger.Ledger`. The rules themselves stand in `lua/`: each script is one atomic
step in the store, on the store's clock; `lua/shared.lua` draws the state.

Around the ledger: `leases` (holds of gateways that die), `settler` (what is over is booked), `recall` (a store that
lost something is told), `allowance` (while there is none), `books` (for people: what is spent, counters made anew).

This room knows nothing of requests, routes or prices' origin: it is told the worst case, and later what was used.
"""
