"""A policy folder to test with: every section, two clouds and an edge."""

from __future__ import annotations

from pathlib import Path

from gateway.policy.compiled import CompiledPolicy
from gateway.policy.load import load_policy

ENVIRON = {"GPU_KEY": "gpu-secret-value", "US_URL": "https://us.example.com/v1/"}
HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

FILES = {
    "backends.yaml": """\
backends:
  edge:
    type: edge
    model: smollm2-135m-instruct
    region: local
    compliance: [no-egress]
  gpu-eu:
    type: openai
    base_url: https://gpu.eu.example.com/v1
    api_key: ${GPU_KEY}
    region: eu-west
    compliance: [gdpr, zero-retention]
    timeouts: {connect: 2s, first_token: 8s, idle: 1500ms, total: 2m}
    concurrency: 64
  openai-us:
    type: openai
    base_url: ${US_URL}
    region: us-east
""",
    "models.yaml": """\
models:
  large:
    - {backend: gpu-eu, model: meta-llama/Llama-3.3-70B, price: {input: 0.25, output: 0.75}, context_tokens: 8_000}
    - backend: openai-us
      model: gpt-4.1
      price: {input: 2, output: 8, cached_input: 0.5}
  small:
    - {backend: edge}
""",
    "constraints.yaml": """\
constraints:
  - name: eu-stays
    when: tenant.region == "eu" && "personal" in request.labels
    require: {region: [eu-*, local], compliance: [gdpr | no-egress]}
  - name: health-stays
    when: '"health" in request.labels'
    require:
      compliance: [no-egress]
""",
    "routes.yaml": """\
routes:
  - name: autocomplete
    when: request.feature == "autocomplete"
    mode: edge_only
  - name: batch
    when: request.feature == "batch"
    mode: cloud_only
    models: [large]
    optimize: {cost: 1.0}
    when_budget_is_spent: cheapest
  - name: chat
    mode: draft_refine
    draft: {model: small, max_tokens: 100, default: off}
    objectives: {final_first_token: 1500ms, cost_per_request: 0.02}
    fallback: [small]
    cache: {ttl: 1h}
    when_budget_is_spent: edge_only
""",
    "tenants.yaml": f"""\
tenants:
  acme:
    region: eu
    labels: [paying]
    keys: [{{name: prod, sha256: {HASH}}}]
    budgets:
      - {{tokens: 2_000_000, per: day}}
      - {{usd: 50, per: month}}
    rate: {{requests: 600, tokens: 200_000, per: minute}}
  guest:
    keyless: true
""",
}


def write_folder(directory: Path, **changed: str) -> Path:
    """Write the folder, with the text of files (named without `.yaml`) put in place of the usual."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in {**FILES, **{f"{name}.yaml": text for name, text in changed.items()}}.items():
        (directory / name).write_text(text, "utf-8")
    return directory


def loaded(directory: Path, **changed: str) -> CompiledPolicy:
    """The folder, compiled."""
    return load_policy(write_folder(directory, **changed), ENVIRON)
