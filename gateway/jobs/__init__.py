"""Work that outlives the request that asked for it: finals that are fetched later, and batches of lines.

Main types: `later.Later` (one answer, made at once, fetched when it is there), `files.Files` (what clients upload and
what batches give, in the store), `batches.Batches` (what is known of a batch, and which of its lines are whose) and
`worker.BatchWorker` (works batches off). All of them answer through `answering.Answering`: decided, held and settled as
any request, under the policy in force when it is done, not when it was asked for.

Whoever works on something has a lease on it in the store, and renews it. When its gateway dies, the lease ends, and
another one takes over; what the dead one had reserved is booked (`budgets`), and what it had finished stands. A result
is written once: who comes second, because it was frozen meanwhile, is not heard.

This room knows no HTTP: what is asked for here comes from `server`, and what is told is bytes in OpenAI's schemas.
"""
