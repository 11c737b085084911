// The store is wiped under live readers. In one conversation they come back to nothing, in the other to a new conversation
// under the same name, whose offsets overlap with those they hold.

import { ask, compared, conversation, report, user, waited, watch } from './common.mjs';

const both = (client) => [watch(client, 'sse'), watch(client, 'long-poll')];

async function grown(client) {
  const admission = await client.send(user('hello'));
  await client.wait(admission);
  const watching = both(client);
  await Promise.all(watching.map((each) => each.settled(admission.submissionId)));
  return { admission, watching, before: await client.history() };
}

const gone = conversation('gone');
const again = conversation('again');
const kept = conversation('waiting');
const first = await grown(gone);
const second = await grown(again);
const named = { idempotencyKey: 'the same' };
const lost = await kept.send({ ...user('for ever'), ...named });
let delivered = 0;
const waiting = kept.wait(lost, { onEvent: (event) => { delivered += event.type === 'message-delta' ? 1 : 0; } });
const held = watch(kept, 'long-poll');
await held.says('Let me think');

// The old server is gone, its store too, and the new store is filled by a server at another address.
const { url } = await ask('wipe');
const other = conversation('again', 'clerk', url);
for (const body of ['think', 'weather', 'hello']) await other.wait(await other.send(user(body)));
await conversation('waiting', 'clerk', url).send({ ...user('think'), ...named });
await ask('return');

async function observed(client, watching, condition) {
  await Promise.all(watching.map((each) => each.until(condition)));
  return { sse: await compared(client, watching[0]), polled: await compared(client, watching[1]) };
}

await report({
  async gone() {
    await Promise.all(first.watching.map((each) => each.until((now) => now.phase === 'absent')));
    const admission = await gone.send(user('think'));
    for (const each of first.watching) each.refresh();
    const settled = (now) => now.conversation?.settlements.some((each) => each.submissionId === admission.submissionId);
    return { admission, before: first.before, ...(await observed(gone, first.watching, settled)) };
  },

  async again() {
    const regrown = (now) => now.conversation?.settlements.length === 3;
    return { before: second.before, ...(await observed(again, second.watching, regrown)) };
  },

  async waiting() {
    await waiting;
    return { lost, delivered, read: await kept.read(lost.submissionId) };
  },
});
