// What every scenario uses: the published client, a recorded observation, and a voice to the test that started the process.
//
// Laws. Nothing here touches the wire: requests are made by the published packages alone. What is waited for is a fact that
// is observed, never a time. A process says one JSON document at its end; before that it may ask the test to do something.

import { mkdirSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { createFlueClient } from '@flue/sdk';

export const [base, project] = process.argv.slice(2);

/** What the long scenes of the agent say. */
export const LONG = Array.from({ length: 80 }, (_, number) => `w${number}`).join(' ');

/** The client of one conversation; `id` is encoded, as an application has to. */
export function conversation(id, agent = 'clerk', at = base, options = {}) {
  return createFlueClient({ url: `${at}/agents/${agent}/${encodeURIComponent(id)}`, ...options });
}

export const user = (body, attachments) => ({ message: { kind: 'user', body, ...(attachments && { attachments }) } });

/** Let the tools that hold at this gate go on. */
export function open(gate) {
  mkdirSync(`${project}/gates`, { recursive: true });
  writeFileSync(`${project}/gates/${gate}`, '');
}

/** An observation that remembers how it went: `phases`, and every `text` of the answers that was not a continuation. */
export function watch(client, live) {
  const observation = client.observe(live ? { live } : {});
  const waiting = new Set();
  const seen = { phases: [], jumps: [], doubled: [] };
  let text = '';
  const look = () => {
    const now = observation.getSnapshot();
    if (seen.phases.at(-1) !== now.phase) seen.phases.push(now.phase);
    if (now.conversation) {
      const next = textOf(now.conversation);
      if (!next.startsWith(text)) seen.jumps.push([text, next]);
      text = next;
      const ids = now.conversation.messages.map((message) => message.id);
      if (new Set(ids).size !== ids.length) seen.doubled.push(ids);
    }
    for (const check of [...waiting]) check(now);
  };
  observation.subscribe(look);
  return {
    seen,
    refresh: () => observation.refresh(),
    close: () => observation.close(),
    now: () => observation.getSnapshot(),
    /** The first observed snapshot for which `condition` holds. */
    until(condition) {
      return new Promise((resolve) => {
        const check = (now) => {
          if (!condition(now)) return;
          waiting.delete(check);
          resolve(now);
        };
        waiting.add(check);
        check(observation.getSnapshot());
      });
    },
    settled(submission) {
      return this.until((now) => now.conversation?.settlements.some((each) => each.submissionId === submission));
    },
    says(part) {
      return this.until((now) => now.conversation && textOf(now.conversation).includes(part));
    },
  };
}

/** All words of the answers, in order. */
export function textOf(conversation) {
  const answers = conversation.messages.filter((message) => message.role === 'assistant');
  return answers.flatMap((message) => message.parts.filter((part) => part.type === 'text')).map((part) => part.text).join('');
}

/** What an observation ended with, how it went, and the history to compare it with. */
export async function compared(client, watched) {
  const { messages, settlements } = watched.now().conversation;
  const seen = watched.seen;
  watched.close();
  const history = await client.history();
  return { observed: { messages, settlements }, history, text: textOf(history), ...seen };
}

/** `wait()`, with every chunk it was given; `error` when it threw. */
export async function waited(client, admission) {
  const events = [];
  let error;
  try {
    await client.wait(admission, { onEvent: (event) => void events.push(event) });
  } catch (thrown) {
    error = described(thrown);
  }
  return { events, error };
}

export function described(error) {
  const { name, message, status, body, failure, targetId } = error;
  return { name, message, status, body, failure, targetId, error: error.error };
}

/** What `promise` was refused with. */
export async function refusal(promise) {
  try {
    return { accepted: await promise };
  } catch (error) {
    return described(error);
  }
}

// --- the test that started this process -----------------------------------------------------------------------------

let lines;

/** Ask the test to do something, such as killing the server; returns when it is done, with its answer. */
export async function ask(what, details = {}) {
  lines ??= createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  console.log(JSON.stringify({ ask: what, ...details }));
  const { value, done } = await lines.next();
  if (done) throw new Error('the test has gone');
  return JSON.parse(value);
}

/** Run the scenarios at the same time and say what each of them returned, or the error that ended it. */
export async function report(scenarios) {
  const results = {};
  await Promise.all(
    Object.entries(scenarios).map(async ([name, scenario]) => {
      try {
        results[name] = await scenario(name);
      } catch (error) {
        results[name] = { threw: String(error.stack ?? error), ...described(error) };
        console.error(name, error);
      }
    }),
  );
  // A pipe is written in its own time: the process ends when all of it is.
  process.stdout.write(`${JSON.stringify({ result: results })}\n`, () => process.exit(0));
}
