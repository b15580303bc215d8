"""Who asks: tenants, and the API keys that stand for them.

Main types: `tenant.Tenant`, `tenant.Identity`; `keys` makes, hashes and finds API keys.
A key in plain is seen by `keys` and by the client, by nobody else: policy and store hold hashes. What a tenant may do
stands in policy, what it may spend in `budgets`.
"""
