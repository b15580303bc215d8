// Prometheus' text format, and the figures that the page shows of it.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

export function readMetrics(text) {
  const found = new Map();
  for (const line of text.split("\n")) {
    const parts = line.startsWith("#") ? null : LINE.exec(line);
    if (!parts) continue;
    const labels = Object.fromEntries([...(parts[2] ?? "").matchAll(LABEL)].map((one) => [one[1], one[2]]));
    if (!found.has(parts[1])) found.set(parts[1], []);
    found.get(parts[1]).push({ labels, value: Number(parts[3]) });
  }
  return found;
}

const sum = (metrics, name, wanted = () => true) =>
  (metrics?.get(name) ?? []).filter((one) => wanted(one.labels)).reduce((total, one) => total + one.value, 0);

function median(metrics, name, before) {
  // Of a histogram's buckets, what half lies below; linear within the bucket.
  const buckets = new Map();
  for (const [source, sign] of [[metrics, 1], [before, -1]])
    for (const one of source?.get(`${name}_bucket`) ?? []) {
      const limit = one.labels.le === "+Inf" ? Infinity : Number(one.labels.le);
      buckets.set(limit, (buckets.get(limit) ?? 0) + sign * one.value);
    }
  const limits = [...buckets.keys()].sort((a, b) => a - b);
  const total = buckets.get(Infinity) ?? 0;
  if (total <= 0) return null;
  let low = 0, below = 0;
  for (const limit of limits) {
    const count = buckets.get(limit);
    if (count >= total / 2) return limit === Infinity ? low : low + (limit - low) * (total / 2 - below) / Math.max(1, count - below);
    low = limit;
    below = count;
  }
  return null;
}

export function figuresOf(metrics, before, at) {
  const requests = sum(metrics, "firstdraft_requests_total");
  const looks = sum(metrics, "firstdraft_cache_total", (labels) => labels.result !== "bypass");
  const hits = sum(metrics, "firstdraft_cache_total", (labels) => ["hit", "stale", "coalesced"].includes(labels.result));
  const draft = "firstdraft_draft_ttft_seconds", final = "firstdraft_final_ttft_seconds";
  return {
    requests,
    requestsPerS: before ? Math.max(0, requests - sum(before.metrics, "firstdraft_requests_total")) / (at - before.at) : null,
    errors: sum(metrics, "firstdraft_requests_total", (labels) => /^[45]/.test(labels.status)),
    tokens: sum(metrics, "firstdraft_tokens_total", (labels) => ["input", "output"].includes(labels.kind)),
    cost: sum(metrics, "firstdraft_cost_usd_total"),
    cacheLooks: looks,
    cacheShare: looks ? hits / looks : null,
    refused: sum(metrics, "firstdraft_budget_holds_total", (labels) => labels.outcome === "refused"),
    draftTtft: median(metrics, draft),
    finalTtft: median(metrics, final),
    recentDraft: before ? median(metrics, draft, before.metrics) : null,
    recentFinal: before ? median(metrics, final, before.metrics) : null,
  };
}
