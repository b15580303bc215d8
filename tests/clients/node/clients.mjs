import OpenAI from "openai";
import Anthropic from "@anthropic-ai/sdk";
import { generateText, streamText } from "ai";
import { createOpenAI } from "@ai-sdk/openai";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
const [url, key] = process.argv.slice(2);
const say = (name, value) => console.log(JSON.stringify([name, value]));
const ask = "What is the capital of France?";
const o = new OpenAI({ baseURL: url + "/v1", apiKey: key, maxRetries: 0 });
const a = new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0 });
for (const draft of ["off", "frames"]) {
  const s = o.responses.stream({ model: "large", input: ask, draft });
  let n = 0; for await (const e of s) if (e.type === "response.output_text.delta") n++;
  say("openai responses " + draft, [(await s.finalResponse()).output_text, n]);
  const m = a.messages.stream({ model: "large", max_tokens: 50, messages: [{ role: "user", content: ask }], draft });
  say("anthropic messages " + draft, (await m.finalMessage()).content);
  const c = o.chat.completions.stream({ model: "large", messages: [{ role: "user", content: ask }], draft });
  say("openai chat " + draft, (await c.finalChatCompletion()).choices[0].message.content);
  const f = (u, i) => fetch(u, { ...i, headers: { ...Object.fromEntries(new Headers(i.headers)), "x-firstdraft-draft": draft } });
  const models = {
    "ai openai (responses)": createOpenAI({ baseURL: url + "/v1", apiKey: key, fetch: f })("large"),
    "ai openai (chat)": createOpenAI({ baseURL: url + "/v1", apiKey: key, fetch: f }).chat("large"),
    "ai anthropic": createAnthropic({ baseURL: url + "/v1", apiKey: key, fetch: f })("large"),
    "ai compatible": createOpenAICompatible({ name: "fd", baseURL: url + "/v1", apiKey: key, fetch: f })("large"),
  };
  for (const [name, model] of Object.entries(models)) {
    try {
      const t = await generateText({ model, prompt: ask, maxRetries: 0 });
      const st = streamText({ model, prompt: ask, maxRetries: 0, onError: (e) => say(name + " ERROR", String(e.error)) });
      let text = ""; for await (const p of st.textStream) text += p;
      say(name + " " + draft, [t.text, text]);
    } catch (e) { say(name + " FAILED " + draft, String(e).slice(0, 300)); }
  }
}
try { await a.messages.create({ model: "lerge", max_tokens: 5, messages: [{ role: "user", content: ask }] }); } catch (e) { say("anthropic error", [e.status, e.error?.error?.type]); }
try { await o.responses.create({ model: "lerge", input: ask }); } catch (e) { say("openai error", [e.status, e.code]); }
