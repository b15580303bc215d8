// What each SDK for Node shows: plain, streamed, with drafts, with an error, and left in the middle. One JSON line each.
import OpenAI from "openai";
import Anthropic from "@anthropic-ai/sdk";
import { generateText, streamText } from "ai";
import { createOpenAI } from "@ai-sdk/openai";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";

const [url, key, ask, slow] = process.argv.slice(2);
const say = (name, value) => console.log(JSON.stringify([name, value]));
const v1 = { baseURL: `${url}/v1`, apiKey: key };
const o = new OpenAI({ ...v1, maxRetries: 0 });
const a = new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0 });
const user = (content) => [{ role: "user", content }];
const status = (error) => [error.status, error.code ?? error.error?.error?.type];

// The AI SDK has no way to add a field to a body: the header asks for the draft.
const withDraft = (draft) => (to, init) =>
  fetch(to, { ...init, headers: { ...Object.fromEntries(new Headers(init.headers)), "x-firstdraft-draft": draft } });

function ofAiSdk(make) {
  return {
    whole: async (model, prompt, draft) => (await generateText({ model: make(draft, model), prompt, maxRetries: 0 })).text,
    pieces: async function* (model, prompt, draft, signal) {
      const failures = [];
      const onError = ({ error }) => failures.push(error);
      const result = streamText({ model: make(draft, model), prompt, maxRetries: 0, abortSignal: signal, onError });
      yield* result.textStream;
      if (failures.length) throw failures[0];
    },
    status: (error) => [error.statusCode, error.data?.error?.code ?? error.data?.error?.type],
  };
}

const clients = {
  "openai chat": {
    whole: async (model, prompt, draft) =>
      (await o.chat.completions.create({ model, messages: user(prompt), draft })).choices[0].message.content,
    pieces: async function* (model, prompt, draft, signal) {
      const asked = { model, messages: user(prompt), draft, stream: true };
      for await (const chunk of await o.chat.completions.create(asked, { signal })) yield chunk.choices[0].delta.content ?? "";
    },
    status,
  },
  "openai chat helper": {
    whole: async (model, prompt, draft) =>
      (await o.chat.completions.stream({ model, messages: user(prompt), draft }).finalChatCompletion()).choices[0].message.content,
    pieces: async function* (model, prompt, draft, signal) {
      const stream = o.chat.completions.stream({ model, messages: user(prompt), draft }, { signal });
      for await (const chunk of stream) yield chunk.choices[0].delta.content ?? "";
    },
    status,
  },
  "openai responses": {
    whole: async (model, input, draft) => (await o.responses.create({ model, input, draft })).output_text,
    pieces: async function* (model, input, draft, signal) {
      const stream = o.responses.stream({ model, input, draft }, { signal });
      for await (const event of stream) if (event.type === "response.output_text.delta") yield event.delta;
    },
    status,
  },
  "anthropic messages": {
    whole: async (model, prompt, draft) =>
      (await a.messages.create({ model, max_tokens: 50, messages: user(prompt), draft })).content[0].text,
    pieces: async function* (model, prompt, draft, signal) {
      const stream = a.messages.stream({ model, max_tokens: 900, messages: user(prompt), draft }, { signal });
      for await (const event of stream) if (event.type === "content_block_delta") yield event.delta.text;
    },
    status,
  },
  "ai openai (responses)": ofAiSdk((draft, model) => createOpenAI({ ...v1, fetch: withDraft(draft) })(model)),
  "ai openai (chat)": ofAiSdk((draft, model) => createOpenAI({ ...v1, fetch: withDraft(draft) }).chat(model)),
  "ai anthropic": ofAiSdk((draft, model) => createAnthropic({ ...v1, fetch: withDraft(draft) })(model)),
  "ai compatible": ofAiSdk((draft, model) => createOpenAICompatible({ ...v1, name: "fd", fetch: withDraft(draft) })(model)),
};

async function whatFails(work) {
  try {
    await work();
  } catch (error) {
    return error;
  }
  throw new Error("it did not fail");
}

async function drained(pieces) {
  let text = "";
  for await (const piece of pieces) text += piece;
  return text;
}

async function leave(client) {
  const leaving = new AbortController();
  try {
    for await (const piece of client.pieces("large", slow, "off", leaving.signal)) if (piece) leaving.abort();
  } catch {
    // some throw that they were aborted, some just end
  }
}

for (const [name, client] of Object.entries(clients)) {
  try {
    for (const draft of ["off", "frames"]) {
      const shown = [await client.whole("large", ask, draft), await drained(client.pieces("large", ask, draft))];
      say(`${name} ${draft}`, shown);
    }
    say(`${name} error`, client.status(await whatFails(() => client.whole("lerge", ask, "off"))));
    await leave(client);
    say(`${name} left`, true);
  } catch (error) {
    say(`${name} FAILED`, String(error.stack).slice(0, 400));
  }
}
