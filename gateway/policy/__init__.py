"""Policy: what a platform team wrote in YAML, checked and compiled, so that a decision is quick and cannot fail.

A folder becomes a policy in steps, each a module: `yaml_file` and `document` (files -> one tree that knows line and
column of everything in it), `schema` and `validate` (tree -> typed specs, or mistakes), `compile` (specs -> policy).
`load.load_policy` runs them all and reports every mistake at once; `store.PolicyStore` watches the folder and swaps;
`history` keeps what was in force.
Each request: `conditions` (the outcomes of all conditions, from `clauses`, `tables` and, for the rest, the library;
`classes` is the key under which that is remembered), `rule_index` (which rules that makes apply), `pools` (what a route
may use, ready to be filtered).
All requests at once: `syntax` and `evaluate` (a condition's tree, and what it is worth), `space` (the requests that a
policy can tell apart), `outcomes` and `search` (a request with wanted outcomes, or that there is none), `reach` (what a
route may use), `dead_rules` and `literals` (rules that can never do anything).
Beside them: `cases` (the folder's tests), `replay` (recorded facts), `json_schema`.
Main types: `compiled.CompiledPolicy`, `facts.Facts`, `conditions.Conditions`.
This room never decides about a request (`routing` does) and, but for `store`, does no asynchronous I/O.
"""
