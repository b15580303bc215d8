"""What answers for a model: one client for each kind of backend, all with the same two methods.

`call.BackendClient` is that interface and `call.Call` what it is given; `openai.OpenAIBackend` speaks OpenAI's API over
HTTP, `edge.EdgeBackend` asks the edge process, `pool.Backends` keeps one client for each backend of the policy.
Every error of a library becomes one of ours here (`failures`) and nowhere else. Nothing in here decides where a request
goes, tries another deployment, or looks at a budget.
"""
