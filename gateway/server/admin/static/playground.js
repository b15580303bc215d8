import { html, useEffect, useRef, useState } from "/admin/static/preact-htm-3.1.1.js";

const SHOWN = ["x-firstdraft-route", "x-firstdraft-mode", "x-firstdraft-deployment", "x-firstdraft-cache", "x-firstdraft-cascade", "x-firstdraft-no-draft", "x-firstdraft-policy"];

async function* events(body) {
  const decoder = new TextDecoder();
  let rest = "";
  for (const reader = body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += decoder.decode(value, { stream: true });
    const parts = rest.split("\n\n");
    rest = parts.pop();
    for (const part of parts)
      for (const line of part.split("\n"))
        if (line.startsWith("data:") && line.slice(5).trim() !== "[DONE]") yield JSON.parse(line.slice(5));
  }
}

function without(seen) {
  const why = seen.headers.find(([name]) => name === "no-draft")?.[1];
  return why ? `none: ${why}` : "";
}

export function Playground({ api, tenants, deployments }) {
  const models = [...new Set(deployments.flatMap((one) => one.models))];
  const [seen, setSeen] = useState(null), [busy, setBusy] = useState(false), asking = useRef(null);
  const stop = () => asking.current?.abort();
  useEffect(() => stop, []);
  const run = async (event) => {
    event.preventDefault();
    if (busy) return stop();
    const form = event.target.elements, began = performance.now();
    const shown = { draft: "", final: "", state: "", headers: [], error: "", draftMs: null, finalMs: null };
    const tell = () => setSeen({ ...shown });
    asking.current = new AbortController();
    setBusy(true);
    tell();
    try {
      const body = { model: form.model.value, stream: true, draft: "frames", messages: [{ role: "user", content: form.prompt.value }] };
      const answer = await api(`v1/playground?tenant=${encodeURIComponent(form.tenant.value)}`, { method: "POST", body: JSON.stringify(body), signal: asking.current.signal,
        headers: { "content-type": "application/json", ...(form.feature.value.trim() ? { "x-firstdraft-feature": form.feature.value.trim() } : {}) } });
      shown.headers = SHOWN.filter((name) => answer.headers.get(name)).map((name) => [name.replace("x-firstdraft-", ""), answer.headers.get(name)]);
      for await (const chunk of events(answer.body)) {
        const passed = performance.now() - began, text = chunk.choices?.[0]?.delta?.content;
        if (chunk.error) shown.error = chunk.error.message;
        if (chunk.draft) {
          shown.state = chunk.draft.state;
          if (chunk.draft.state === "partial" && chunk.draft.text) { shown.draft += chunk.draft.text; shown.draftMs ??= passed; }
          else if (chunk.draft.state === "complete" && chunk.draft.text) shown.draft = chunk.draft.text;
        } else if (text) { shown.final += text; shown.finalMs ??= passed; }
        tell();
      }
    } catch (error) {
      shown.error = error.name === "AbortError" ? "stopped" : error.message;
    }
    tell();
    setBusy(false);
  };
  const served = tenants.filter((one) => !one.disabled && !one.refused);
  return html`<form class="card" onSubmit=${run}><h2>Ask as a tenant: its policy, its budget</h2>
      <textarea name="prompt" aria-label="Prompt" required>Why is the sky blue?</textarea>
      <div class="row">
        <select name="tenant" aria-label="Tenant">${served.map((one) => html`<option value=${one.name}>${one.name}</option>`)}</select>
        <select name="model" aria-label="Model">${models.map((name) => html`<option value=${name}>${name}</option>`)}</select>
        <input name="feature" size="14" placeholder="feature" aria-label="Feature" autocomplete="off" />
        <button class="run">${busy ? "Stop" : "Ask"}</button>
        <span class="bad">${seen?.error}</span></div></form>
    ${seen && html`<div class="charts">
      <div class="card"><h2>Draft${seen.state && html`<span class="badge">${seen.state}</span>`}${seen.draftMs != null && html`<span class="unit">first after ${Math.round(seen.draftMs)} ms</span>`}</h2><div class="text draft">${seen.draft || html`<span class="dim">${without(seen)}</span>`}</div></div>
      <div class="card"><h2>Final${seen.finalMs != null && html`<span class="unit">first after ${Math.round(seen.finalMs)} ms</span>`}</h2><div class="text">${seen.final}</div></div></div>
      <div class="card"><h2>Decision</h2><table><tbody>${seen.headers.map(([name, value]) => html`<tr><td class="dim">${name}</td><td class="wide">${value}</td></tr>`)}</tbody></table></div>`}`;
}
