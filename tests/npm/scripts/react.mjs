// The published hook in a React application with a document: what a person would see of it, at every render.

import { readFileSync } from 'node:fs';
import { Window } from 'happy-dom';
import { ask, base, conversation, report } from './common.mjs';

const window = new Window({ url: `${base}/` });
const page = { window, document: window.document, location: window.location, navigator: window.navigator };
for (const [name, value] of Object.entries(page)) Object.defineProperty(globalThis, name, { value, configurable: true });

const { createElement: h, StrictMode } = await import('react');
const { createRoot } = await import('react-dom/client');
const { useFlueAgent } = await import('@flue/react');

const text = (message) => message.parts.filter((part) => part.type === 'text').map((part) => part.text).join('');

/** An application that shows one conversation, and remembers every one of its renders. */
function chat(options) {
  const renders = [];
  const waiting = new Set();
  function Chat() {
    const agent = useFlueAgent(options);
    renders.push(agent);
    queueMicrotask(() => { for (const check of [...waiting]) check(); });
    return h('ol', null, agent.messages.map((message) => h('li', { key: message.id, className: message.role }, text(message))));
  }
  const place = document.createElement('main');
  document.body.append(place);
  const root = createRoot(place);
  root.render(h(StrictMode, null, h(Chat)));
  const now = () => renders.at(-1);
  return {
    now,
    send: (...given) => now().sendMessage(...given),
    refresh: () => now().refresh(),
    until(condition) {
      return new Promise((resolve) => {
        const check = () => {
          if (!now() || !condition(now())) return;
          waiting.delete(check);
          resolve(now());
        };
        waiting.add(check);
        check();
      });
    },
    rows: () => [...place.querySelectorAll('li')].map((row) => [row.className, row.textContent]),
    /** What was rendered, without repetitions, and how it ended. */
    async end(client) {
      const seen = renders.map((each) => ({
        status: each.status,
        ready: each.historyReady,
        error: each.error?.message,
        rows: each.messages.map((message) => [message.id, message.role, text(message)]),
      }));
      const { messages, settlements, status, failedSends } = now();
      const result = {
        seen, messages, settlements, status, failed: failedSends.map((each) => each.message), rows: this.rows(),
        doubled: seen.filter((each) => new Set(each.rows.map((row) => row[0])).size !== each.rows.length),
        history: await client.history(),
      };
      root.unmount();
      place.remove();
      return result;
    },
  };
}

/** Send in an application of its own until the answer is settled. */
async function talked(name, body, { options = {}, send = {} } = {}) {
  const client = conversation(name);
  const shown = chat({ url: client.url, ...options });
  await shown.until((agent) => agent.historyReady);
  await shown.send(body, send);
  await shown.until((agent) => agent.settlements.length === 1);
  return shown.end(client);
}

const png = readFileSync(new URL('./pixel.png', import.meta.url)).toString('base64');

const calm = {
  talk: (name) => talked(name, 'slowly'),
  polled: (name) => talked(name, 'slowly', { options: { live: 'long-poll' } }),
  failure: (name) => talked(name, 'provider'),
  tools: (name) => talked(name, 'two cities'),
  broken: (name) => talked(name, 'broken'),
  shown: (name) => talked(name, 'show'),
  image: (name) => talked(name, 'how many', { send: { images: [{ type: 'image', data: png, mimeType: 'image/png' }] } }),

  async client_given(name) {
    return talked(name, 'think', { options: { url: undefined, client: conversation(name) } });
  },

  async in_a_row(name) {
    const client = conversation(name);
    const shown = chat({ url: client.url });
    await shown.until((agent) => agent.historyReady);
    for (const [place, body] of ['hello', 'provider', 'think'].entries()) {
      await shown.send(body);
      await shown.until((agent) => agent.settlements.length === place + 1);
    }
    return shown.end(client);
  },

  async aborted(name) {
    const client = conversation(name);
    const shown = chat({ url: client.url });
    await shown.until((agent) => agent.historyReady);
    await shown.send('for ever');
    await shown.until((agent) => agent.messages.some((message) => text(message).includes('Let me think')));
    await client.abort();
    await shown.until((agent) => agent.settlements.length === 1);
    return shown.end(client);
  },

  async two_tabs(name) {
    const client = conversation(name);
    const tabs = [chat({ url: client.url }), chat({ url: client.url })];
    await Promise.all(tabs.map((tab) => tab.until((agent) => agent.historyReady)));
    await tabs[0].send('slowly');
    tabs[1].refresh();
    await Promise.all(tabs.map((tab) => tab.until((agent) => agent.settlements.length === 1)));
    return { mine: await tabs[0].end(client), other: await tabs[1].end(client) };
  },

  async refused(name) {
    const client = conversation(name, 'nobody');
    const shown = chat({ url: client.url });
    await shown.until((agent) => agent.historyReady || agent.status === 'error');
    const error = await shown.send('hello').catch((thrown) => thrown);
    await shown.until((agent) => agent.failedSends.length === 1);
    const { status, failedSends } = shown.now();
    return { status, failed: failedSends.map((each) => each.message), thrown: error.status, rows: shown.rows() };
  },
};

/** In the middle of an answer when the server is killed. */
async function survived(name, live, middle) {
  const client = conversation(name);
  const shown = chat({ url: client.url, live });
  await shown.until((agent) => agent.historyReady);
  await shown.send('until killed');
  await shown.until((agent) => agent.messages.some((message) => text(message).includes('w3 ')));
  await middle();
  await shown.until((agent) => agent.settlements.length === 1);
  return shown.end(client);
}

const running = Object.fromEntries(Object.entries(calm).map(([name, scenario]) => [name, scenario(name)]));
let next;
let here = 0;
/** When both are in the middle, and nobody else is left to be disturbed. */
const middle = () => {
  here += 1;
  if (here === 1) return new Promise((resolve) => { next = resolve; });
  return Promise.allSettled(Object.values(running)).then(() => ask('next life')).then(() => next());
};

await report({
  ...Object.fromEntries(Object.entries(running).map(([name, promise]) => [name, () => promise])),
  killed_sse: (name) => survived(name, 'sse', middle),
  killed_polled: (name) => survived(name, 'long-poll', middle),
});
