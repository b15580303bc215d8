"""Firstdraft: a hybrid edge-draft / cloud-refine LLM gateway.

One way down, once up: a request enters at `server`, goes down through `pipeline`, `modes`, `routing`,
`policy`, the service rooms, `edge`/`store` and `wire`, and its events come back up the same stack.
A room may import only what stands below it. README.md draws the map.
"""
