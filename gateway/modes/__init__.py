"""How a decision is carried out: from deployments to events.

`run.run` picks the mode's file; `attempt` is the only place that tries again; `single` serves `cloud_only` and
`edge_only`, `draft_refine` serves the mode of that name, `verdict` compares a draft with its final.
A mode takes its deployments from the plan alone, so it can never weaken a constraint.
Not in here: policy (it has decided already), budgets (the hold is open while a mode runs), HTTP.
"""
