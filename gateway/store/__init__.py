"""What replicas share: Redis or Valkey, through one client, and the Valkey that the gateway starts when none is named.

Main types: `client.Store` (every error of the client library becomes StoreUnavailable here and nowhere else),
`script.Script` (Lua that runs atomically in the server), `embedded.EmbeddedValkey` (a server under our supervision).

All keys begin with `fd1:`: a gateway whose data looks different uses another prefix, so that old and new can run side
by side. Keys that one script touches share a hash tag. The server has to know Lua flags: Valkey, or Redis 7 and newer.

This room knows nothing of budgets, caches or tenants: their keys and scripts stand in their own rooms.
"""
