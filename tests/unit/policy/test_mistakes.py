"""Seeded mistakes: each is found at its line and column, with words that help."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from gateway.errors import Mistake, PolicyError
from gateway.policy.load import load_policy
from tests.policy_folder import ENVIRON, FILES, HASH, write_folder


@dataclasses.dataclass
class Seed:
    """In `file`, `old` becomes `new`; `‸` in `new` is where the mistake is to be found."""

    file: str
    old: str
    new: str
    says: str

    def marked(self) -> str:
        """The file with the mistake, and with `‸` where it is to be found."""
        before = FILES[f"{self.file}.yaml"]
        assert before.count(self.old) >= 1
        return before.replace(self.old, self.new, 1)

    def write(self, folder: Path) -> Path:
        """A policy folder with the mistake in it."""
        return write_folder(folder, **{self.file: self.marked().replace("‸", "")})

    def in_place(self, folder: Path, found: Iterable[Mistake]) -> list[Mistake]:
        """Those found at the mark; all, where there is none."""
        marked = self.marked()
        place = marked.find("‸")
        if place < 0:
            return list(found)
        line, column = marked.count("\n", 0, place) + 1, place - marked.rfind("\n", 0, place)
        expected = (str(folder / f"{self.file}.yaml"), line, column)
        return [mistake for mistake in found if (mistake.file, mistake.line, mistake.column) == expected]


B, M, C, R, T = "backends", "models", "constraints", "routes", "tenants"
SEEDS = {
    # Names of keys and values
    "unknown section": Seed(B, "backends:", "‸backend:", "did you mean `backends`?"),
    "unknown key": Seed(B, "    base_url: https", "    ‸base_ulr: https", "did you mean `base_url`?"),
    "unknown nested key": Seed(B, "first_token: 8s", "‸firsttoken: 8s", "did you mean `first_token`?"),
    "unknown key in a flow": Seed(M, "{backend: edge}", "{‸backnd: edge}", "did you mean `backend`?"),
    "unknown key of a price": Seed(M, "cached_input: 0.5", "‸cached: 0.5", "did you mean `cached_input`?"),
    "unknown key of a route": Seed(R, "    fallback: [", "    ‸falback: [", "did you mean `fallback`?"),
    "unknown key of a budget": Seed(T, "{usd: 50, per", "{‸eur: 50, per", "unknown key `eur`"),
    "unknown backend type": Seed(B, "type: edge", "type: ‸egde", "did you mean `edge`?"),
    "unknown mode": Seed(R, "mode: cloud_only", "mode: ‸cloud", "did you mean `cloud_only`?"),
    "unknown window": Seed(T, "per: month", "per: ‸months", "did you mean `month`?"),
    "unknown end of a budget": Seed(R, "is_spent: cheapest", "is_spent: ‸cheap", "did you mean `cheapest`?"),
    "unknown draft default": Seed(R, "default: off", "default: ‸frame", "did you mean `frames`?"),
    "draft default that is on": Seed(R, "default: off", "default: ‸on", "`on` is not known here"),
    "unknown backend": Seed(M, "backend: gpu-eu", "backend: ‸gpu-ue", "did you mean `gpu-eu`?"),
    "unknown model": Seed(R, "models: [large]", "models: [‸lagre]", "did you mean `large`?"),
    "unknown fallback": Seed(R, "fallback: [small]", "fallback: [‸smal]", "did you mean `small`?"),
    "unknown drafting model": Seed(R, "model: small", "model: ‸smaller", "did you mean `small`?"),
    "no such name": Seed(T, "  guest:", "  ‸gu est:", "is no name"),
    # Given twice
    "duplicate key": Seed(B, "    region: local", "    region: local\n    ‸region: local", "given twice"),
    "duplicate backend": Seed(B, "  openai-us:", "  ‸gpu-eu:", "given twice"),
    "duplicate route": Seed(R, "name: batch", "name: ‸autocomplete", "named twice"),
    "duplicate constraint": Seed(C, "name: health-stays", "name: ‸eu-stays", "named twice"),
    "duplicate deployment": Seed(
        M, "    - {backend: edge}", "    - {backend: edge}\n    - ‸{backend: edge}", "stands twice"
    ),
    "duplicate key hash": Seed(
        T, "keyless: true", f"keys: [{{name: other, sha256: ‸{HASH}}}]", "already `prod` of tenant `acme`"
    ),
    "duplicate key name": Seed(
        T, f"sha256: {HASH}}}]", f"sha256: {HASH}}}, {{name: ‸prod, sha256: {'0' * 64}}}]", "`prod` is named twice"
    ),
    "duplicate budget": Seed(T, "- {usd: 50, per: month}", "- ‸{tokens: 3, per: day}", "already"),
    "second keyless tenant": Seed(T, "    region: eu", "    keyless: true\n    region: eu", "only one tenant"),
    "one deployment, two descriptions": Seed(
        M, "    - {backend: edge}", "    - ‸{backend: openai-us, model: gpt-4.1, price: free}", "described differently"
    ),
    # Missing
    "missing type": Seed(B, "  gpu-eu:\n    type: openai\n", "  ‸gpu-eu:\n", "`type` is missing in `gpu-eu`"),
    "missing base_url": Seed(
        B,
        "  openai-us:\n    type: openai\n    base_url: ${US_URL}",
        "  ‸openai-us:\n    type: openai",
        "`base_url` is missing",
    ),
    "missing price": Seed(
        M, "    - {backend: edge}", "    - ‸{backend: openai-us, model: other}", "`price` is missing"
    ),
    "missing model": Seed(M, "    - {backend: edge}", "    - ‸{backend: openai-us, price: free}", "`model` is missing"),
    "missing mode": Seed(
        R, "  - name: batch", "  - ‸name: odd\n    when: request.n == 2\n  - name: batch", "`mode` is missing"
    ),
    "missing require": Seed(
        C,
        "  - name: health-stays\n    when: '\"health\" in request.labels'\n    require:\n      compliance: [no-egress]",
        "  - ‸name: health-stays",
        "`require` is missing",
    ),
    "require of nothing": Seed(C, "      compliance: [no-egress]", "      ‸region: []", "asks for nothing"),
    "missing edge model": Seed(
        B, "  edge:\n    type: edge\n    model: smollm2-135m-instruct", "  ‸edge:\n    type: edge", "`model` is missing"
    ),
    "no deployments": Seed(M, "  small:\n    - {backend: edge}", "  ‸small: []", "a list of deployments"),
    # Values and units
    "duration without unit": Seed(B, "connect: 2s", "connect: ‸2", "`2s`"),
    "unknown unit": Seed(B, "connect: 2s", "connect: ‸2sec", "`sec` is no unit"),
    "duration of nothing": Seed(R, "ttl: 1h", "ttl: ‸0s", "over 0"),
    "octal number": Seed(B, "concurrency: 64", "concurrency: ‸064", "whole number"),
    "base sixty": Seed(B, "concurrency: 64", "concurrency: ‸1:04", "whole number"),
    "negative count": Seed(B, "concurrency: 64", "concurrency: ‸-1", "whole number"),
    "fraction of a token": Seed(T, "tokens: 2_000_000", "tokens: ‸1.5", "whole number"),
    "negative price": Seed(M, "output: 0.75", "output: ‸-1", "from 0"),
    "price in text": Seed(M, "output: 0.75", "output: ‸$0.75", "leave the $ out"),
    "too fine a price": Seed(M, "output: 0.75", "output: ‸0.0000000001", "nine decimals"),
    "price for nothing": Seed(M, "price: {input: 2, output: 8, cached_input: 0.5}", "price: ‸cheap", "or `free`"),
    "price not a number": Seed(M, "output: 0.75", "output: ‸.nan", "US dollars"),
    "weight out of range": Seed(R, "cost: 1.0", "cost: ‸-1.0", "weight"),
    "no hash": Seed(T, HASH, "‸9f86d0", "64 hex digits"),
    "budget without unit": Seed(T, "- {usd: 50, per: month}", "- ‸{per: month}", "either `tokens` or `usd`"),
    "budget of nothing": Seed(T, "- {usd: 50, per: month}", "- ‸{usd: 0, per: month}", "allows nothing"),
    "rate of nothing": Seed(T, "rate: {requests: 600, tokens: 200_000, per: minute}", "rate: ‸{per: minute}", "limits"),
    "answer longer than context": Seed(
        M, "context_tokens: 8_000", "context_tokens: 8_000, max_output_tokens: ‸8_000", "no room"
    ),
    "temperature of cache": Seed(R, "{ttl: 1h}", "{ttl: 1h, temperature: ‸0.5}", "`any`"),
    # YAML's own traps
    "Norway": Seed(T, "region: eu", "region: ‸no", "reads `no` as a boolean"),
    "boolean for text": Seed(B, "region: us-east", "region: ‸true", 'put it in quotes: "true"'),
    "boolean as condition": Seed(R, 'when: request.feature == "batch"', "when: ‸true", "quotes"),
    "boolean as name": Seed(T, "  guest:", "  ‸on:", "reads the key `on` as a boolean"),
    "number for text": Seed(M, "model: gpt-4.1\n", "model: ‸4.1\n", 'put it in quotes: "4.1"'),
    "text for list": Seed(R, "fallback: [small]", "fallback: ‸small", "expected a list"),
    "list for text": Seed(B, "region: us-east", "region: ‸[us-east]", "not a list"),
    "list for mapping": Seed(
        B, "timeouts: {connect: 2s, first_token: 8s, idle: 1500ms, total: 2m}", "timeouts: ‸[2s]", "a mapping"
    ),
    "nothing for text": Seed(B, "region: us-east", "region:‸", "nothing here"),
    "condition left empty": Seed(R, 'when: request.feature == "batch"', "when: ‸null", "nothing here"),
    "text for flag": Seed(T, "keyless: true", "keyless: ‸maybe", "true or false"),
    "custom tag": Seed(B, "region: us-east", "region: ‸!env REGION", "tag `!env`"),
    "python tag": Seed(B, "region: us-east", "region: ‸!!python/name:os.system x", "no meaning here"),
    "merge key": Seed(B, "    region: us-east", "    ‸<<: {region: us-east}", "merge keys"),
    "half-quoted condition": Seed(
        C, "when: '\"health\" in request.labels'", 'when: "health" ‸in request.labels', "needs quotes around"
    ),
    "tab": Seed(B, "    region: us-east", "‸\tregion: us-east", "not YAML"),
    "variable in a flow mapping": Seed(B, "idle: 1500ms", "idle: $‸{IDLE}", "needs quotes"),
    "second document": Seed(T, "  guest:", "‸---\n  guest:", "second document"),
    "undefined alias": Seed(B, "region: us-east", "region: ‸*nowhere", "undefined alias"),
    # Conditions
    "unknown variable": Seed(
        R, 'when: request.feature == "batch"', 'when: request‸.feture == "batch"', "did you mean `request.feature`?"
    ),
    "unknown variable, quoted": Seed(
        C, "'\"health\" in request.labels'", "'\"health\" in request‸.lables'", "did you mean `request.labels`?"
    ),
    "unknown variable in a block": Seed(
        C,
        "when: '\"health\" in request.labels'",
        'when: |\n      "a" in request.labels ||\n        "b" in tenant‸.lbls',
        "did you mean `tenant.labels`?",
    ),
    "unknown function": Seed(
        R, 'request.feature == "batch"', 'request.feature.startswith‸("b")', "did you mean `startsWith`?"
    ),
    "wrong type": Seed(R, 'request.feature == "batch"', "request.feature ‸== 3", "(string, int)"),
    "double against int": Seed(R, 'request.feature == "batch"', "budget.left ‸< 1", "write 1.0"),
    "assignment": Seed(R, 'request.feature == "batch"', 'request.feature ‸= "batch"', "write `==`"),
    "no condition": Seed(
        R, 'when: request.feature == "batch"', "when: ‸request.hour + 1", "true or false, but this gives int"
    ),
    "never evaluates": Seed(R, 'when: request.feature == "batch"', "when: ‸1 / 0 == 1", "never be evaluated"),
    "never true": Seed(R, 'when: request.feature == "batch"', "when: ‸1 > 2", "never true"),
    "constraint never true": Seed(C, "when: '\"health\" in request.labels'", "when: ‸'false'", "never true"),
    "too deep": Seed(R, 'when: request.feature == "batch"', "when: ‸" + "(" * 40 + "true" + ")" * 40, "too deeply"),
    # Rules against each other
    "unreachable route": Seed(R, '    when: request.feature == "batch"\n', "", "never reached"),
    "same condition twice": Seed(
        R, 'when: request.feature == "batch"', 'when: ‸request.feature == "autocomplete"', "same condition"
    ),
    "drafts elsewhere": Seed(R, "model: small", "model: ‸large", "none of it drafts"),
    "draft without a draft": Seed(
        R, "    optimize: {cost", "    ‸draft: {max_tokens: 5}\n    optimize: {cost", "makes no draft"
    ),
    "cascade without a rule": Seed(R, "mode: cloud_only", "mode: ‸cascade", "`cascade: {threshold: 0.8}`"),
    "cascade in another mode": Seed(
        R, "    optimize: {cost", "    ‸cascade: {threshold: 0.8}\n    optimize: {cost", "use `mode: cascade`"
    ),
    "cascade by two measures": Seed(
        R, "mode: cloud_only", "mode: cascade\n    cascade: ‸{threshold: 0.8, target_error: 0.1}", "say either"
    ),
    "cascade by none": Seed(R, "mode: cloud_only", "mode: cascade\n    cascade: ‸{within: 2s}", "say either"),
    "cascade without doubt": Seed(
        R, "mode: cloud_only", "mode: cascade\n    cascade: ‸{threshold: 0}", "`threshold` is over 0"
    ),
    "cascade over one": Seed(
        R, "mode: cloud_only", "mode: cascade\n    cascade: {threshold: ‸1.5}", "a share from 0 to 1"
    ),
    "cascade that is misspelt": Seed(
        R, "mode: cloud_only", "mode: cascade\n    cascade: {‸treshold: 0.8}", "did you mean `threshold`?"
    ),
    "prediction on the edge": Seed(
        M, "{backend: edge}", "{backend: edge, ‸prediction: true}", "only backends of type openai"
    ),
    "scoring of another kind": Seed(
        M, "gpt-4.1\n", "gpt-4.1\n      scoring: {api: ‸tgi}\n", "there are `sglang`, `vllm`"
    ),
    "scoring without its template": Seed(
        M, "gpt-4.1\n", "gpt-4.1\n      scoring: ‸{api: sglang}\n", "sglang needs the model's `chat_template`"
    ),
    "template that is none": Seed(
        M, "gpt-4.1\n", 'gpt-4.1\n      scoring: {api: sglang, chat_template: ‸"{% if %}"}\n', "`chat_template`: "
    ),
    "refine in another mode": Seed(
        R, "    optimize: {cost", "    ‸refine: {wait: 1s}\n    optimize: {cost", "makes no draft to refine"
    ),
    "refine without time": Seed(
        R, "    draft: {model", "    refine: ‸{score: {least: -2}}\n    draft: {model", "`wait` is missing"
    ),
    "score over one": Seed(
        R,
        "    draft: {model",
        "    refine: {wait: 1s, score: {least: ‸2}}\n    draft: {model",
        "the logarithm of a probability",
    ),
    "score of nobody": Seed(
        R,
        "    draft: {model",
        "    models: [large]\n    refine: {wait: 1s, ‸score: {least: -2}}\n    draft: {model",
        "no deployment of this route's `models` has `scoring`",
    ),
    "cascade that waits": Seed(
        R,
        "mode: cloud_only",
        "mode: cascade\n    cascade: {threshold: 0.8}\n    refine: {‸wait: 1s}",
        "in a cascade the draft is always waited for",
    ),
    "cascade without its draft": Seed(
        R,
        "mode: cloud_only",
        "mode: cascade\n    cascade: {threshold: 0.8}\n    draft: {allow: ‸false}",
        "answers first",
    ),
    "hedge with one": Seed(
        R, "mode: cloud_only\n    models: [large]", "mode: hedge\n    models: ‸[small]", "two deployments"
    ),
    "hedge elsewhere": Seed(
        R, "mode: cloud_only", "mode: cloud_only\n    ‸hedge: {after: p95}", "one deployment at a time"
    ),
    "hedge after nothing": Seed(R, "mode: cloud_only", "mode: hedge\n    hedge: {after: ‸p30}", "from p50 to p99"),
    "hedge for all": Seed(R, "mode: cloud_only", "mode: hedge\n    hedge: {extra: ‸80%}", "at most `50%`"),
    "concurrency by another word": Seed(B, "concurrency: 64", "concurrency: ‸many", "a whole number"),
    "check of no path": Seed(B, "    concurrency: 64", "    health: {path: ‸health}", "begins with /"),
    "check of the edge": Seed(
        B, "    model: smollm2", "    ‸warm_connections: 2\n    model: smollm2", "the edge has no"
    ),
    "pin to nothing": Seed(R, "mode: cloud_only", "mode: cloud_only\n    pin: ‸user", "`user` is not known here"),
    "too many retries": Seed(B, "    concurrency: 64", "    retries: ‸11", "from 0 to 10"),
    "unknown store": Seed(
        R, "    cache: {ttl: 1h}", "    retrieval: {store: ‸handbook}", "there is no store `handbook`"
    ),
    "too many passages": Seed(R, "    cache: {ttl: 1h}", "    retrieval: ‸{store: x, top_k: 99}", "at most 50"),
    "store without a place": Seed(T, "tenants:", "stores:\n  ‸wiki: {type: http, id: x}\ntenants:", "`url` is missing"),
    "store with too much": Seed(
        T, "tenants:", "stores:\n  wiki: {type: files, ‸url: x}\ntenants:", "of type files has no `url`"
    ),
    "store of nobody": Seed(
        T, "tenants:", "stores:\n  wiki: {type: files, tenants: [‸acmee]}\ntenants:", "there is no tenant `acmee`"
    ),
    "store with its key in the URL": Seed(
        T, "tenants:", "stores:\n  wiki: {type: http, id: x, url: ‸https://u:p@h/v1}\ntenants:", "expected an http"
    ),
    "model of a remote backend": Seed(B, "    region: us-east", "    ‸model: gpt-4.1", "only the edge"),
    "key of the edge": Seed(B, "    region: local", "    ‸api_key: ${GPU_KEY}", "the edge has no `api_key`"),
    "another model for the edge": Seed(M, "{backend: edge}", "{backend: edge, model: ‸phi}", "the edge loads"),
    # Addresses and secrets
    "literal key": Seed(B, "api_key: ${GPU_KEY}", "api_key: ‸sk-proj-abc123", "this looks like the key itself"),
    "key as default": Seed(
        B, "api_key: ${GPU_KEY}", "api_key: ‸${GPU_KEY:-sk-proj-abc123}", "a key never stands in a policy"
    ),
    "unset key": Seed(B, "api_key: ${GPU_KEY}", "api_key: ‸${NO_KEY}", "NO_KEY is not set"),
    "no key file": Seed(B, "api_key: ${GPU_KEY}", "api_key: ‸file:nowhere/key", "cannot be read"),
    "unset address": Seed(B, "base_url: ${US_URL}", "base_url: ‸${NO_URL}", "NO_URL is not set"),
    "half a reference": Seed(B, "base_url: ${US_URL}", "base_url: ‸https://${US", "without its `}`"),
    "no name in a reference": Seed(B, "base_url: ${US_URL}", "base_url: ‸${US-URL}", "names no variable"),
    "not HTTP": Seed(B, "base_url: ${US_URL}", "base_url: ‸file:///etc/passwd", "http"),
    "no host": Seed(B, "base_url: ${US_URL}", "base_url: ‸https:///v1", "http"),
    "password in a URL": Seed(
        B, "base_url: ${US_URL}", "base_url: ‸https://me:pw@example.com", "must not hold a password"
    ),
    "query in a URL": Seed(B, "base_url: ${US_URL}", "base_url: ‸https://example.com/v1?key=1", "no ?"),
}


@pytest.mark.parametrize("seed", SEEDS.values(), ids=SEEDS.keys())
def test_seeded_mistake_is_found_in_its_place(seed: Seed, tmp_path: Path):
    """A mistake is reported with its file, line and column, what is wrong, and what would be right."""
    with pytest.raises(PolicyError) as caught:
        load_policy(seed.write(tmp_path), ENVIRON)
    here = seed.in_place(tmp_path, caught.value.mistakes)
    assert any(seed.says in found.message for found in here), f"{seed.new} not where it is in\n{caught.value}"
    assert "sk-proj-abc123" not in caught.value.message


def test_all_mistakes_are_reported_at_once(tmp_path: Path):
    """One mistake does not hide another, in whatever file and at whatever stage it is found."""
    folder = write_folder(
        tmp_path,
        backends=FILES["backends.yaml"].replace("type: edge", "type: egde").replace("${GPU_KEY}", "sk-live"),
        routes=FILES["routes.yaml"].replace("request.feature ==", "request.feture =="),
        models=FILES["models.yaml"].replace("backend: openai-us", "backend: openai-su"),
        tenants="tenants: {a: {region: no, budget: []}}",
        more="rutes: []",
    )
    with pytest.raises(PolicyError) as caught:
        load_policy(folder, ENVIRON)
    found = [(Path(mistake.file).name, mistake.line) for mistake in caught.value.mistakes]
    assert found == sorted(found)
    assert {file for file, _ in found} == {"backends.yaml", "models.yaml", "routes.yaml", "tenants.yaml", "more.yaml"}
    assert len(found) == 8


def test_broken_entry_is_not_blamed_on_those_who_refer_to_it(tmp_path: Path):
    """A reference to an entry that has a mistake of its own is no second mistake."""
    folder = write_folder(
        tmp_path, backends=FILES["backends.yaml"].replace("  gpu-eu:\n    type: openai", "  gpu-eu:\n    type: opena")
    )
    with pytest.raises(PolicyError) as caught:
        load_policy(folder, ENVIRON)
    assert len(caught.value.mistakes) == 1


def test_name_in_two_files_is_a_mistake_that_names_both(tmp_path: Path):
    """The same name in two files is an error at the second, which says where the first is."""
    folder = write_folder(tmp_path, zz="tenants:\n  acme: {}\nroutes:\n  - {name: chat, mode: cloud_only}\n")
    with pytest.raises(PolicyError) as caught:
        load_policy(folder, ENVIRON)
    text = caught.value.message
    assert "zz.yaml:2:3: `acme` is named twice; first at" in text
    assert "tenants.yaml:2" in text
    assert "zz.yaml:4:12: `chat` is named twice; first at" in text


LAUGHS = b"a: &a [x]\n" + b"".join(
    b"%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n" % (name, name, *[name - 1] * 8) for name in b"bcdefgh"
)
"""Seven lines that expand to two million values."""


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"a" * 1_000_001, "more than 1,000,000 bytes"),
        (b"tenants:\n  a: {region: \xff}\n", ":2:15: not UTF-8"),
        (b"tenants:\n  a: {region: \x01}\n", ":2:15: control character"),
        (b"[" * 400_000, "levels deep"),
        (b"- just\n- a list\n", "mapping with sections"),
        (b"tenants: [a]\n", "mapping from names"),
        (b"routes: {a: b}\n", "is a list"),
        (b"tenants: &a\n  b: *a\n", "aliases expand"),
        (b"? [a]\n: b\n", "a key must be a text"),
        (
            LAUGHS,
            "aliases expand",
        ),
    ],
    ids=["large", "bytes", "control", "deep", "list", "mapping", "sequence", "recursive", "key", "billion laughs"],
)
def test_hostile_file_is_a_mistake_and_no_crash(tmp_path: Path, data: bytes, says: str):
    """Whatever is in a file, loading ends soon with a mistake that names the file."""
    folder = write_folder(tmp_path)
    (folder / "hostile.yaml").write_bytes(data)
    with pytest.raises(PolicyError) as caught:
        load_policy(folder, ENVIRON)
    assert "hostile.yaml" in caught.value.message
    assert says in caught.value.message


@pytest.mark.parametrize("kind", ["link to nothing", "empty", "half written", "pipe", "folder", "upper case"])
def test_a_file_that_may_have_held_constraints_is_never_just_left_out(tmp_path: Path, kind: str):
    """What cannot be read, or says nothing, refuses the whole policy: the old one goes on."""
    file = tmp_path / ("z.YAML" if kind == "upper case" else "z.yaml")
    match kind:
        case "link to nothing":
            file.symlink_to(tmp_path / "gone")
        case "empty":
            file.write_text("\n")
        case "half written":
            file.write_text("constraints:\n")
        case "pipe":
            os.mkfifo(file)
        case "folder":
            file.mkdir()
        case _:
            file.write_text("constraint: []\n")
    write_folder(tmp_path)
    with pytest.raises(PolicyError) as refused:
        load_policy(tmp_path, ENVIRON)
    assert any(mistake.file.endswith(file.name) for mistake in refused.value.mistakes)


def test_folder_that_is_not_there_says_how_to_get_one(tmp_path: Path):
    """Without a folder, or with an empty one, the message names `firstdraft init`."""
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder in (tmp_path / "nowhere", empty):
        with pytest.raises(PolicyError, match="firstdraft init"):
            load_policy(folder, ENVIRON)
