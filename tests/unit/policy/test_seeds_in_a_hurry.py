"""Mistakes that platform teams make when they write policies in a hurry: each is found at its line and column."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.policy_folder import write_folder
from tests.unit.policy.test_mistakes import B, C, M, R, Seed, T
from tests.unit.policy.test_seeds_of_others import found_in

SEEDS = {
    # keys at each level
    "key of a timeout": Seed(B, "idle: 1500ms", "‸idel: 1500ms", "did you mean `idle`"),
    "key with a dash for an underscore": Seed(
        B, "    base_url: https", "    ‸base-url: https", "did you mean `base_url`"
    ),
    "key in camel case": Seed(B, "    api_key: $", "    ‸apiKey: $", "did you mean `api_key`"),
    "key in the plural": Seed(B, "    region: us-east", "    ‸regions: us-east", "did you mean `region`"),
    "key of a cache": Seed(
        R,
        "cache: {ttl: 1h}",
        "cache: {‸tll: 1h}",
        "unknown key `tll`; there are `charge`, `shared`, `stale`, `temperature`, `ttl`",
    ),
    "key of an objective": Seed(
        R, "final_first_token: 1500ms", "‸final_first_tokens: 1500ms", "did you mean `final_first_token`"
    ),
    "key of weights": Seed(R, "optimize: {cost: 1.0}", "optimize: {‸costs: 1.0}", "did you mean `cost`"),
    "key of a draft": Seed(R, "max_tokens: 100", "‸max_token: 100", "did you mean `max_tokens`"),
    "key of a rate": Seed(T, "rate: {requests: 600", "rate: {‸request: 600", "did you mean `requests`"),
    "key of an API key": Seed(T, "sha256: ", "‸sha-256: ", "did you mean `sha256`"),
    "key of a tenant": Seed(T, "    labels: [paying]", "    ‸label: [paying]", "did you mean `labels`"),
    "key of a requirement": Seed(C, "require: {region: [eu-*", "require: {‸regoin: [eu-*", "did you mean `region`"),
    "if for when": Seed(C, '    when: \'"health"', '    ‸if: \'"health"', "unknown key `if`"),
    "requires": Seed(C, "    require: {region", "    ‸requires: {region", "did you mean `require`"),
    "section in the singular": Seed(C, "constraints:", "‸constraint:", "did you mean `constraints`"),
    "section in capitals": Seed(R, "routes:", "‸Routes:", "did you mean `routes`"),
    "section inside a section": Seed(R, "  - name: batch", "  - ‸routes: []\n  - name: batch", "unknown key `routes`"),
    # types and units
    "number for a name": Seed(R, "name: batch", "name: ‸7", "7"),
    "duration in words": Seed(B, "total: 2m}", "total: ‸2 minutes}", "`minutes` is no unit"),
    "duration with a comma": Seed(B, "total: 2m}", "total: ‸'1,5m'}", "duration"),
    "negative duration": Seed(B, "first_token: 8s", "first_token: ‸-8s", "duration"),
    "duration as a sum": Seed(B, "total: 2m}", "total: ‸1m30s}", "duration"),
    "duration in ISO 8601": Seed(R, "ttl: 1h", "ttl: ‸PT1H", "duration"),
    "endless duration": Seed(R, "ttl: 1h", "ttl: ‸.inf", "no unit of time"),
    "percent where a share is due": Seed(
        R, "mode: cloud_only", "mode: cascade\n    cascade: {threshold: ‸80%}", "share"
    ),
    "price with a comma": Seed(M, "output: 0.75", "output: ‸'0,75'", "US dollars"),
    "price in exponents": Seed(M, "output: 0.75", "output: ‸7.5e-1", "US dollars as a number"),
    "endless price": Seed(M, "output: 0.75", "output: ‸.inf", "US dollars"),
    "price as a list": Seed(M, "price: {input: 2, output: 8, cached_input: 0.5}", "price: ‸[2, 8]", "price"),
    "price without output": Seed(
        M, "price: {input: 2, output: 8, cached_input: 0.5}", "‸price: {input: 2}", "`output` is missing"
    ),
    "price of zero": Seed(M, "price: {input: 2, output: 8, cached_input: 0.5}", "price: ‸0", "free"),
    "huge number of tokens": Seed(T, "tokens: 2_000_000", "tokens: ‸99999999999999999999999999", "whole number"),
    "hexadecimal": Seed(B, "concurrency: 64", "concurrency: ‸0x40", "whole number"),
    "octal as of YAML 1.2": Seed(B, "concurrency: 64", "concurrency: ‸0o100", "whole number"),
    "number with commas": Seed(T, "tokens: 2_000_000", "tokens: 2,‸000,000", "YAML reads the key `000`"),
    "number in quotes": Seed(T, "tokens: 2_000_000", "tokens: ‸'2000000'", "whole number"),
    "not a number of requests": Seed(T, "requests: 600", "requests: ‸.NaN", "whole number"),
    "no limit at all": Seed(B, "concurrency: 64", "concurrency: ‸0", "from 1"),
    "queue without a limit": Seed(B, "    concurrency: 64", "    ‸queue: 10", "concurrency"),
    "yes for a flag": Seed(T, "keyless: true", "keyless: ‸'yes'", "true or false"),
    "tenant of nothing": Seed(T, "  guest:\n    keyless: true\n", "  guest:‸\n", "not nothing"),
    # unknown names and typos
    "region with a space": Seed(B, "region: us-east", "region: ‸us east", "region"),
    "region with an underscore": Seed(C, "region: [eu-*, local]", "region: [‸eu_*, local]", "eu-*"),
    "region without its dash": Seed(C, "region: [eu-*, local]", "region: [‸euwest, local]", "eu-west"),
    "regions that match nothing": Seed(
        C,
        "    require: {region: [eu-*, local], comp",
        "    ‸require: {region: [ap-*, mars-*], comp",
        "no deployment meets `eu-stays`",
    ),
    "term with a typo in a backend's own list": Seed(
        C, "compliance: [gdpr | no-egress]", "compliance: [gdpr | ‸noegress]", "no-egress"
    ),
    "time zone with a typo": Seed(
        T, "    region: eu\n", "    region: eu\n    timezone: ‸Europe/Berlni\n", "Europe/Berlin"
    ),
    "time zone as an offset": Seed(T, "    region: eu\n", "    region: eu\n    timezone: ‸+02:00\n", "time zone"),
    "time zone by three letters": Seed(T, "    region: eu\n", "    region: eu\n    timezone: ‸CEST\n", "time zone"),
    "tenant of a store, from another file": Seed(
        B, "backends:", "stores:\n  w: {type: files, tenants: [‸gest]}\nbackends:", "did you mean `guest`"
    ),
    "backend of another file": Seed(M, "backend: openai-us", "backend: ‸openai_us", "did you mean `openai-us`"),
    "drafting model of another file": Seed(R, "model: small", "model: ‸edge", "no model `edge`"),
    "environment name that is not set": Seed(B, "${US_URL}", "‸${US_URI}", "US_URI"),
    "environment name without brackets": Seed(B, "${US_URL}", "‸$US_URL", "URL"),
    "key in the clear": Seed(
        B, "api_key: ${GPU_KEY}", "api_key: ‸sk-proj-abcdefghij0123456789ABCDEFGHIJ", "environment"
    ),
    "file of a key that is not there": Seed(B, "api_key: ${GPU_KEY}", "api_key: ‸file:/nowhere/key", "nowhere"),
    "url without a scheme": Seed(
        B, "base_url: https://gpu.eu.example.com/v1", "base_url: ‸gpu.eu.example.com/v1", "http"
    ),
    "url with a query": Seed(
        B, "base_url: https://gpu.eu.example.com/v1", "base_url: ‸https://gpu.eu.example.com/v1?x=1", "no ?"
    ),
    # CEL
    "int against a text": Seed(R, 'request.feature == "batch"', 'request.hour ‸== "6"', "(int, string)"),
    "list against a label": Seed(
        C, "'\"health\" in request.labels'", "'[\"health\"] ‸in request.labels'", "does not work"
    ),
    "assignment in words": Seed(R, 'request.feature == "batch"', 'request.feature ‸is "batch"', "not expected"),
    "or in words": Seed(R, 'request.feature == "batch"', "request.stream ‸or request.tools", "not expected"),
    "percent of a budget": Seed(R, 'when: request.feature == "batch"', "when: ‸budget.left > 20.0", "never true"),
    "share as a whole number": Seed(R, 'request.feature == "batch"', "budget.left ‸>= 1", "write 1.0"),
    "regular expression in slashes": Seed(
        R, 'request.feature == "batch"', 'request.feature ‸=~ "b.*"', "cannot stand in a condition"
    ),
    "label by its dot": Seed(C, "'\"health\" in request.labels'", "request.labels‸.health", "list(string)"),
    "contains on a list": Seed(C, "'\"health\" in request.labels'", 'request.labels.contains‸("health")', "contains"),
    "upper case in a feature": Seed(
        R,
        'when: request.feature == "batch"',
        'when: ‸request.feature == "batch" && request.feature == "Batch"',
        "never true",
    ),
    "empty condition": Seed(R, 'when: request.feature == "batch"', 'when: ‸""', "it is empty"),
    "spaces for a condition": Seed(R, 'when: request.feature == "batch"', 'when: ‸"  "', "it is empty"),
    "hour that does not come": Seed(R, 'when: request.feature == "batch"', "when: ‸request.hour > 23", "never true"),
    "multi-line text": Seed(
        R,
        'when: request.feature == "batch"',
        'when: |\n      request.feature == "a" ||\n      request.feature ==\n        request‸.modl',
        "did you mean `request.model`",
    ),
    "multi-line text in quotes": Seed(
        R,
        'when: request.feature == "batch"',
        'when: \'request.feature == "a" ||\n      request‸.modl == "b"\'',
        "did you mean `request.model`",
    ),
    # rules
    "route after the one for all": Seed(
        R,
        "    when_budget_is_spent: edge_only\n",
        "    when_budget_is_spent: edge_only\n  - name: ‸late\n    mode: edge_only\n",
        "never reached",
    ),
    "downgrade to an edge that may not": Seed(
        R, "    when_budget_is_spent: cheapest", "    when_budget_is_spent: ‸edge-only", "did you mean `edge_only`"
    ),
    "fallback to what the route has": Seed(R, "    fallback: [small]", "    fallback: [small, ‸small]", "twice"),
    "models twice": Seed(R, "models: [large]", "models: [large, ‸large]", "twice"),
    # YAML
    "anchor named twice": Seed(T, "    labels: [paying]", "    labels: &a [paying]\n    ‸<<: *a", "merge keys"),
    "list in the line of its key": Seed(
        B, "    region: us-east", "    region: ‸- us-east", "block sequence entries are not allowed"
    ),
    "colon in a plain text": Seed(B, "region: us-east", "region: us‸: east", "not YAML"),
    "bracket not closed": Seed(
        B,
        "compliance: [gdpr, zero-retention]\n    timeouts:",
        "compliance: [gdpr, zero-retention\n    timeouts‸:",
        "the bracket in line 12 may not be closed",
    ),
    "quote not closed": Seed(B, "region: us-east\n", 'region: ‸"us-east\n', "has no end"),
    "version of YAML": Seed(B, "backends:\n  edge", "%YAML 1.2\n‸backends:\n  edge", "not YAML"),
    "dash without space": Seed(R, "  - name: batch", "  ‸-name: batch", "not YAML"),
    "end of a document in the middle": Seed(T, "  guest:", "...\n  ‸guest:", "not YAML"),
    "control character": Seed(B, "region: us-east", "region: us‸\x07east", "control character"),
    "list item at the wrong depth": Seed(R, "  - name: batch\n    when", "  - name: batch\n   ‸when", "not YAML"),
}


@pytest.mark.parametrize("seed", SEEDS.values(), ids=SEEDS.keys())
def test_mistake_made_in_a_hurry_is_found_in_its_place(seed: Seed, tmp_path: Path):
    """Misspelt keys, units, wild cards that match nothing, YAML's own traps: with the place and what is right."""
    assert "‸" in seed.new
    found = found_in(seed.write(tmp_path))
    here = seed.in_place(tmp_path, found)
    assert any(seed.says in mistake.message for mistake in here), [str(each) for each in found]


@pytest.mark.parametrize(
    ("file", "is_told"),
    [
        ("eu/constraints.yaml", True),
        ("eu/deep/er/constraints.yml", True),
        ("tests/more/cases.yaml", True),
        ("examples/eu/policy.yaml", False),
        ("tests/cases.yaml", False),
        (".git/x.yaml", False),
        ("eu/notes.txt", False),
    ],
)
def test_file_that_nobody_reads_is_told_of(file: str, is_told: bool, tmp_path: Path):
    """YAML in a folder below the policy's is no part of it; where that is not meant to be so, `policy check` warns."""
    folder = write_folder(tmp_path)
    (folder / file).parent.mkdir(parents=True)
    (folder / file).write_text("constraints: []\n")
    told = [each.file for each in found_in(folder) if "is not read" in each.message]
    assert told == ([str(folder / file)] if is_told else [])
