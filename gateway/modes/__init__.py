"""How a decision is carried out: from deployments to events.

`run.run` picks the mode's file; `attempt` is the only place that tries again; `single` serves `cloud_only` and
`edge_only`, `hedge`, `cascade` and `draft_refine` the modes of those names, the last two on `draft` (the edge's quick
answer) and `refine` (the final after or beside it). `verdict` compares the two, `changes` says where they differ;
`confidence` says how sure the edge was, `score` what a larger model thinks of it, `copying` gives it as a prediction.
A mode takes its deployments from the plan alone, so it can never weaken a constraint.
Not in here: policy (it has decided already), budgets (the hold is open while a mode runs), HTTP.
"""
