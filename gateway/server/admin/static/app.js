import { html, render, useEffect, useRef, useState } from "/admin/static/preact-htm-3.1.1.js";
import { Playground } from "/admin/static/playground.js";
import { figuresOf, readMetrics } from "/admin/static/figures.js";

const EVERY_MS = 2000;
const KEPT = 150;
const SPAN_S = KEPT * EVERY_MS / 1000; // what the charts show
let key = ""; // in memory alone: gone with the page

export async function api(path, options = {}) {
  const headers = { ...options.headers, ...(key ? { authorization: `Bearer ${key}` } : {}) };
  const answer = await fetch(`/admin/${path}`, { ...options, headers, cache: "no-store", credentials: "omit" });
  if (!answer.ok) {
    const said = await answer.json().catch(() => null);
    throw Object.assign(new Error(said?.error?.message ?? `status ${answer.status}`), { status: answer.status });
  }
  return answer;
}

const json = async (path) => (await api(`v1/${path}`)).json();
const number = (value, digits = 0) => value == null || Number.isNaN(value) ? "–" : value.toLocaleString("en", { maximumFractionDigits: digits });
const ms = (seconds) => seconds == null ? "–" : number(seconds * 1000) + " ms";
const money = (dollars) => "$" + number(dollars, 6);
const leftOf = (one) => one.unit === "usd" ? `${money(one.left)} of ${money(one.limit)}` : `${number(one.left)} of ${number(one.limit)} ${one.unit}`;
const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB");

function KeyForm({ onKey, message }) {
  const submit = (event) => { event.preventDefault(); key = event.target.elements.key.value.trim(); onKey(); };
  return html`<form class="card key" onSubmit=${submit}>
    <h2>Admin key</h2>
    <div class="row"><input name="key" type="password" autocomplete="off" autofocus size="28" aria-label="Admin key" />
    <button class="run">Open</button></div>
    <div class="bad">${message}</div></form>`;
}

function Chart({ title, data, series, unit }) {
  const place = useRef(null), chart = useRef(null);
  useEffect(() => {
    const dim = getComputedStyle(document.documentElement).getPropertyValue("--dim");
    const line = getComputedStyle(document.documentElement).getPropertyValue("--line");
    const axis = { stroke: dim, grid: { stroke: line, width: 1 }, ticks: { stroke: line } };
    const times = { ...axis, space: 80, incrs: [15, 30, 60, 300], values: (_, at) => at.map(clock) };
    chart.current = new uPlot({
      width: place.current.clientWidth, height: 190, cursor: { points: { size: 6 } },
      axes: [times, { ...axis, size: 56 }],
      scales: { x: { range: (_, low, high) => [high - SPAN_S, high] }, y: { range: (_, low, high) => [0, Math.max((high ?? 0) * 1.1, 1)] } },
      series: [{ label: "at", value: (_, at) => at == null ? "–" : clock(at) }, ...series.map((one) => ({ label: one.label, stroke: one.stroke, width: 2, spanGaps: true, points: { show: true, size: 4 }, value: (_, value) => value == null ? "–" : number(value, 2) + unit }))],
    }, data, place.current);
    const resize = () => chart.current.setSize({ width: place.current.clientWidth, height: 190 });
    addEventListener("resize", resize);
    return () => { removeEventListener("resize", resize); chart.current.destroy(); };
  }, []);
  useEffect(() => { chart.current?.setData(data); });
  return html`<div class="card"><h2>${title}</h2><div ref=${place}></div></div>`;
}

const Tile = ({ name, value, unit, bad }) => html`<div class="card"><h2>${name}</h2>
  <span class=${bad ? "figure bad" : "figure"}>${value}</span><span class="unit">${unit}</span></div>`;

function Table({ title, heads, rows, empty = "nothing yet" }) {
  return html`<div class="card"><h2>${title}</h2>${rows.length === 0 ? html`<span class="dim">${empty}</span>` : html`<table>
    <thead><tr>${heads.map((head) => html`<th>${head}</th>`)}</tr></thead>
    <tbody>${rows.map((row) => html`<tr>${row.map((cell) => html`<td>${cell}</td>`)}</tr>`)}</tbody></table>`}</div>`;
}

const STATES = { open: "fails", half_open: "failed, is probed next", probing: "failed, is probed", paused: "asked for a pause" };
const yes = (good, text) => html`<span class=${good ? "good" : "bad"}>${text}</span>`;

function Overview({ now }) {
  const { status, policy, deployments, history, figures, members } = now;
  const columns = (...names) => [history.map((one) => one.at), ...names.map((name) => history.map((one) => one[name] ?? null))];
  const parts = Object.entries(status.parts);
  return html`
    <div class="tiles">
      <${Tile} name="Requests" value=${number(figures.requests)} unit=${`${number(figures.requestsPerS, 1)}/s`} />
      <${Tile} name="In flight" value=${number(status.in_flight)} unit="this worker" />
      <${Tile} name="Errors" value=${number(figures.errors)} unit="4xx and 5xx" bad=${figures.errors > 0} />
      <${Tile} name="Draft TTFT" value=${ms(figures.draftTtft)} unit="p50" />
      <${Tile} name="Final TTFT" value=${ms(figures.finalTtft)} unit="p50" />
      <${Tile} name="Tokens" value=${number(figures.tokens)} unit="in, out" />
      <${Tile} name="Cost" value=${money(figures.cost)} />
      <${Tile} name="Cache hits" value=${figures.cacheShare == null ? "–" : number(figures.cacheShare * 100) + "%"} unit=${`of ${number(figures.cacheLooks)}`} />
      <${Tile} name="Budget refusals" value=${number(figures.refused)} bad=${figures.refused > 0} />
    </div>
    <div class="charts">
      <${Chart} title="Requests a second" data=${columns("requestsPerS")} unit="/s" series=${[{ label: "requests", stroke: "#4d7df2" }]} />
      <${Chart} title="Time to first token, ms, p50" data=${columns("draftMs", "finalMs")} unit=" ms" series=${[{ label: "draft", stroke: "#c09a2b" }, { label: "final", stroke: "#4d7df2" }]} />
    </div>
    ${policy.refused ? html`<div class="card"><h2>A newer policy was refused</h2><div class="bad text">${policy.refused}</div></div>` : ""}
    <${Table} title="Parts" heads=${["part", "state", ""]} rows=${parts.map(([name, part]) => [name, yes(part.ok, part.ok ? "ok" : "not ok"), html`<span class="dim">${part.reason ?? part.state ?? part.version ?? ""}</span>`])} />
    <${Table} title="Deployments" heads=${["deployment", "region", "terms", "models", "health", "first token", "per token", "waiting"]}
      rows=${deployments.map((one) => [one.id, one.region, one.compliance.join(", "), one.models.join(", "), yes(one.healthy, one.healthy ? "healthy" : `${STATES[one.trouble?.state] ?? one.trouble?.state ?? "fails"}: ${one.trouble?.reason ?? ""}`), ms(one.first_token_s), ms(one.per_token_s), number(one.waiting_tokens)])} />
    <${Table} title="Workers" heads=${["worker", "policy", "", "seen"]} rows=${members.map((one) => [one.name, one.version, yes(!one.refused, one.refused ? "refused a newer one" : "in force"), number(one.seen_s_ago, 1) + " s ago"])} />`;
}

function Tenants({ tenants, budgets }) {
  return html`<${Table} title="Tenants" heads=${["tenant", "from", "region", "labels", "keys", "state", "left"]}
    rows=${tenants.map((one) => [one.name, one.source, one.region, one.labels.join(", "),
      one.keyless ? html`<span class="dim">needs none</span>` : one.keys.map((item) => item.name + (!item.not_after ? "" : item.not_after * 1000 < Date.now() ? " (has ended)" : " (ends)")).join(", "),
      one.disabled ? yes(false, "disabled") : one.refused ? yes(false, one.refused) : yes(true, "served"),
      (budgets[one.name] ?? []).map((left) => html`<div class=${left.left <= 0 ? "bad" : ""}>${leftOf(left)} / ${left.per}${left.feature ? ` (${left.feature})` : ""}</div>`)])} />`;
}

const two = (first, second) => html`<div>${first}</div><div class="dim">${second}</div>`;

const Requests = ({ requests }) => html`<${Table} title="Newest requests of this worker"
  heads=${["tenant, request", "route, mode", "deployment, feature", "status", "draft", "cache", "TTFT", "total", "tokens", "cost"]}
  rows=${requests.map((one) => [two(one.tenant, one.request_id.slice(0, 14)), two(one.route ?? "", one.mode ?? ""), two(one.deployment ?? "", one.feature ?? ""),
    two(yes(one.status < 400 && !one.error, one.status), one.error ?? ""), one.draft ?? html`<span class="dim">${one.no_draft ?? ""}</span>`, one.cache ?? "", ms(one.final_ttft_s), ms(one.e2e_s), `${one.input_tokens}+${one.output_tokens}`, money(one.cost_usd)])} />`;

function Policy({ policy }) {
  return html`<${Table} title="In force" heads=${["version", ...Object.keys(policy.counts)]} rows=${[[policy.version, ...Object.values(policy.counts)]]} />
    ${policy.refused ? html`<div class="card"><h2>Refused</h2><div class="bad text">${policy.refused}</div></div>` : ""}
    ${policy.warnings.length ? html`<div class="card"><h2>Warnings</h2>${policy.warnings.map((one) => html`<div class="text">${one}</div>`)}</div>` : ""}
    <${Table} title="Versions that were in force" heads=${["version", "since (UTC)"]} rows=${policy.history.map((one) => [one.version, one.at.replace(/(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)/, "$1-$2-$3 $4:$5:$6")])} />`;
}

const TABS = ["Overview", "Tenants", "Requests", "Policy", "Playground"];

function App() {
  const [now, setNow] = useState(null), [tab, setTab] = useState(TABS.find((name) => location.hash === `#${name}`) ?? "Overview");
  const [asks, setAsks] = useState(null), [trouble, setTrouble] = useState(""), [opened, setOpened] = useState(0);
  const memory = useRef({ before: null, history: [] });
  useEffect(() => {
    let over = false, timer = 0;
    const look = async () => {
      try {
        const [status, policy, deployments, members, tenants, requests, text] = await Promise.all([
          json("status"), json("policy"), json("deployments"), json("members"), json("tenants"), json("requests?limit=50"), api("metrics").then((one) => one.text())]);
        const at = Date.now() / 1000, metrics = readMetrics(text);
        const figures = figuresOf(metrics, memory.current.before, at);
        memory.current.before = { metrics, at };
        memory.current.history = [...memory.current.history, { at, requestsPerS: figures.requestsPerS,
          draftMs: figures.recentDraft == null ? null : figures.recentDraft * 1000, finalMs: figures.recentFinal == null ? null : figures.recentFinal * 1000 }].slice(-KEPT);
        const named = tenants.tenants.slice(0, 20);
        const details = tab === "Tenants" ? await Promise.all(named.map((one) => json(`tenants/${encodeURIComponent(one.name)}`).catch(() => null))) : [];
        if (over) return;
        setNow({ status, policy, deployments: deployments.deployments, members: members.members, tenants: tenants.tenants, requests: requests.requests,
          budgets: Object.fromEntries(details.filter(Boolean).map((one) => [one.name, one.budgets])), figures, history: memory.current.history });
        setTrouble(""); setAsks(null);
      } catch (error) {
        if (over) return;
        if (error.status === 401) { setAsks(key ? "That is not the admin key." : ""); return; }
        setTrouble(error.message);
      }
      if (!over) timer = setTimeout(look, EVERY_MS);
    };
    look();
    return () => { over = true; clearTimeout(timer); };
  }, [opened, tab]);
  if (asks !== null) return html`<${KeyForm} message=${asks} onKey=${() => { setAsks(null); setOpened(opened + 1); }} />`;
  if (now === null) return html`<main class="dim">${trouble || "One moment …"}</main>`;
  return html`<header><h1>Firstdraft</h1>
      <nav>${TABS.map((name) => html`<button class=${name === tab ? "on" : ""} onClick=${() => { location.hash = name; setTab(name); }}>${name}</button>`)}</nav>
      <span class="what">${trouble ? html`<span class="bad">${trouble}</span>` : html`${yes(now.status.status === "ready", now.status.status)} · policy ${now.policy.version}${now.policy.refused ? html` · <span class="bad">a newer one refused</span>` : ""} · ${now.status.version}`}</span></header>
    <main>
      ${tab === "Overview" && html`<${Overview} now=${now} />`}
      ${tab === "Tenants" && html`<${Tenants} tenants=${now.tenants} budgets=${now.budgets} />`}
      ${tab === "Requests" && html`<${Requests} requests=${now.requests} />`}
      ${tab === "Policy" && html`<${Policy} policy=${now.policy} />`}
      ${tab === "Playground" && html`<${Playground} api=${api} tenants=${now.tenants} deployments=${now.deployments} />`}
    </main>`;
}

render(html`<${App} />`, document.getElementById("app"));
