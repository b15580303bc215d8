"""Policy: what a platform team wrote in YAML, checked and compiled, so that a decision is quick and cannot fail.

A folder becomes a policy in steps, each a module: `yaml_file` and `document` (files -> one tree that knows line and
column of everything in it), `schema` and `validate` (tree -> typed specs, or mistakes), `compile` (specs -> policy).
`load.load_policy` runs them all and reports every mistake at once; `store.PolicyStore` watches the folder and swaps.
Main types: `compiled.CompiledPolicy`, `facts.Facts`, `expressions.Conditions`.
This room never decides about a request (`routing` does) and, but for `store`, does no asynchronous I/O.
"""
