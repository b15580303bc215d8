"""What replicas share: Redis or Valkey, through one client, and the Valkey that the gateway starts when none is named.

Main types: `client.Store` (every error of a connection becomes StoreUnavailable in this room and nowhere else),
`script.Script` (Lua that runs atomically in the server), `embedded.EmbeddedValkey` (a server under our supervision).
From the top down: `client` packs and understands commands; `servers` knows which server has a key (one, the master that
Sentinels name, a Cluster's node); `link` is the way to one server, with its circuit; `line` one connection on which all
callers' commands travel together.

All keys begin with `fd1:`. Within that number shapes only grow: scripts leave alone what they do not know, and have the
hash of their text for a name, so that gateways of two versions work on the same data side by side. A change that an
older gateway would misread takes another number. Keys that one script touches share a hash tag. The server has to know
Lua flags: Valkey, or Redis 7 and newer.

This room knows nothing of budgets, caches or tenants: their keys and scripts stand in their own rooms.
"""
