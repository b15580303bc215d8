"""The admin surface: what operators see and change, on a port of its own or under `/admin`, with a key of its own.

`routes` is the table of its URLs, `access` says who may use it. Handlers read what the services know, and write tenants
into the store; nothing here is on the way of a client's request. Prompts and answers are nowhere in it.
"""
