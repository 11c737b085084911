// What an application sees when the server under it ends, killed or stopped, and another one takes its place. Which of the two it
// was, this process does not know: it asks for the next life when everything is in the middle of something.

import { ask, compared, conversation, refusal, report, user, waited, watch } from './common.mjs';

const here = [];
let begin;
const next = new Promise((resolve) => { begin = resolve; });

/** Be in the middle of something when `what` resolves, and go on when the next life has begun. */
async function across(what) {
  here.push(what);
  if (here.length === Object.keys(scenarios).length) Promise.all(here).then(() => ask('next life')).then(begin);
  await what;
  await next;
}

/** Send, follow in every way, and come through the change of lives when `middle` holds for every observer. */
async function through(id, body, middle) {
  const client = conversation(id);
  const admission = await client.send(user(body));
  const sse = watch(client, 'sse');
  const polled = watch(client, 'long-poll');
  const waiting = waited(client, admission);
  await across(Promise.all([middle(sse), middle(polled)]));
  const wait = await waiting;
  await Promise.all([sse.settled(admission.submissionId), polled.settled(admission.submissionId)]);
  const read = await client.read(admission.submissionId);
  return { admission, wait, read, sse: await compared(client, sse), polled: await compared(client, polled) };
}

const hasCall = (now) => now.conversation?.messages.some((message) => message.parts.some((part) => part.toolCallId));

const scenarios = {
  text: (name) => through(name, 'until killed', (watched) => watched.says('w3 ')),

  tool: (name) => through(name, 'pay', (watched) => watched.until(hasCall)),

  async queued(name) {
    const client = conversation(name);
    const watched = watch(client, 'sse');
    const first = await client.send(user('until killed'));
    watched.refresh();
    await watched.says('w3 ');
    const second = await client.send(user('hello'));
    const both = Promise.all([waited(client, first), waited(client, second)]);
    await across(watched.until((now) => now.conversation?.messages.some((each) => each.submissionId === second.submissionId)));
    await both;
    await Promise.all([watched.settled(first.submissionId), watched.settled(second.submissionId)]);
    return { first, second, both: await both, ...(await compared(client, watched)) };
  },

  async keyed(name) {
    const client = conversation(name);
    const copies = (body, idempotencyKey, count) =>
      Promise.all(Array.from({ length: count }, () => client.send({ ...user(body), idempotencyKey })));
    const before = await copies('until killed', 'running', 2);
    const watched = watch(client, 'sse');
    await across(watched.says('w3 '));
    const again = await copies('until killed', 'running', 5);
    const other = await refusal(client.send({ ...user('hello'), idempotencyKey: 'running' }));
    const replies = await Promise.all(again.map((each) => client.read(each)));
    await watched.settled(before[0].submissionId);
    const late = await copies('until killed', 'running', 2);
    return { receipts: [...before, ...again, ...late], other, replies, ...(await compared(client, watched)) };
  },

  async idle(name) {
    const client = conversation(name);
    const before = await client.send(user('hello'));
    await client.wait(before);
    const [sse, polled] = [watch(client, 'sse'), watch(client, 'long-poll')];
    await across(Promise.all([sse, polled].map((each) => each.until((now) => now.phase === 'live'))));
    const after = await client.send(user('think'));
    await Promise.all([sse.settled(after.submissionId), polled.settled(after.submissionId)]);
    return { before, after, sse: await compared(client, sse), polled: await compared(client, polled) };
  },
};

await report(scenarios);
