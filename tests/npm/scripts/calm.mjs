// What an application does with a server that runs: each scenario in a conversation of its own, all at the same time.

import { readFileSync } from 'node:fs';
import { readSubmissionReply } from '@flue/sdk';
import { base, compared, conversation, open, refusal, report, textOf, user, waited, watch } from './common.mjs';

const png = readFileSync(new URL('./pixel.png', import.meta.url));
const image = { type: 'image', data: png.toString('base64'), mimeType: 'image/png', filename: 'pixel.png' };

/** Send one message and follow it in every way there is. */
async function followed(id, body, attachments) {
  const client = conversation(id);
  const admission = await client.send(user(body, attachments));
  const [sse, polled] = [watch(client, 'sse'), watch(client, 'long-poll')];
  const { events, error } = await waited(client, admission);
  await Promise.all([sse.settled(admission.submissionId), polled.settled(admission.submissionId)]);
  const reply = await refusal(client.read(admission));
  return {
    url: client.url, admission, events, error, reply,
    sse: await compared(client, sse), polled: await compared(client, polled),
  };
}

const simply = (body) => (name) => followed(name, body);

await report({
  hello: simply('hello'),
  long: simply('slowly'),
  tool: simply('weather'),
  parallel: simply('two cities'),
  same_id: simply('same id'),
  wrong_arguments: simply('wrong arguments'),
  unknown_tool: simply('unknown tool'),
  failing_tool: simply('broken'),
  provider: simply('provider'),
  shown: simply('show'),
  thinking: simply('think'),

  async reread(name) {
    const { admission, url } = await followed(name, 'hello');
    return { ...(await conversation(name).read(admission.submissionId)), url };
  },

  async several(name) {
    const client = conversation(name);
    const watched = watch(client, 'sse');
    const replies = [];
    for (const body of ['hello', 'think', 'weather']) {
      const admission = await client.send(user(body));
      replies.push(await client.read(admission));
      if (watched.now().phase === 'absent') watched.refresh();
      await watched.settled(admission.submissionId);
    }
    const last = await client.send(user('hello'));
    const { events } = await waited(client, { ...last, offset: '-1' });
    await watched.settled(last.submissionId);
    return { replies, events, ...(await compared(client, watched)) };
  },

  async slash(name) {
    const id = `${name}/a b/ü?#%`;
    const result = await followed(id, 'hello');
    return { ...result, id, other: await refusal(conversation(name).history()) };
  },

  async joined(name) {
    const client = conversation(name);
    const host = await client.send(user('hold this'));
    const watched = watch(client, 'sse');
    await watched.until((now) => now.conversation?.messages.some((each) => each.parts.some((part) => part.toolCallId)));
    const guest = await client.send(user('also this'));
    await watched.until((now) => now.conversation?.messages.some((each) => each.submissionId === guest.submissionId));
    open('hold');
    const both = await Promise.all([waited(client, host), waited(client, guest)]);
    await Promise.all([watched.settled(host.submissionId), watched.settled(guest.submissionId)]);
    return { host, guest, both, read: await client.read(guest), ...(await compared(client, watched)) };
  },

  async abort_running(name) {
    const client = conversation(name);
    const running = await client.send(user('for ever'));
    const watched = watch(client, 'sse');
    await watched.says('Let me think');
    const queued = await client.send(user('hello'));
    const answer = await client.abort();
    const [first, second] = await Promise.all([waited(client, running), waited(client, queued)]);
    await Promise.all([watched.settled(running.submissionId), watched.settled(queued.submissionId)]);
    const again = await client.abort();
    const reread = await refusal(client.read(running.submissionId));
    return { running, queued, answer, again, first, second, reread, ...(await compared(client, watched)) };
  },

  async abort_tool(name) {
    const client = conversation(name);
    const admission = await client.send(user('hold the abort'));
    const watched = watch(client, 'long-poll');
    await watched.until((now) => now.conversation?.messages.some((each) => each.parts.some((part) => part.toolCallId)));
    const answer = await client.abort();
    const { error } = await waited(client, admission);
    await watched.settled(admission.submissionId);
    return { admission, answer, error, ...(await compared(client, watched)) };
  },

  async abort_nothing(name) {
    return conversation(name).abort();
  },

  async idempotent(name) {
    const client = conversation(name);
    const send = (body, idempotencyKey) => client.send({ ...user(body), idempotencyKey });
    const first = await send('hello', 'key-1');
    const at_once = await send('hello', 'key-1');
    await client.wait(first);
    const later = await send('hello', 'key-1');
    const copies = await Promise.all([1, 2, 3, 4, 5].map(() => send('think', 'key-2')));
    const read = await client.read(later);
    for (const copy of copies) await client.wait(copy);
    const conflict = await refusal(send('weather', 'key-1'));
    return { first, at_once, later, copies, read, conflict, history: await client.history() };
  },

  async conditions(name) {
    const client = conversation(name);
    const send = (uid, body = 'hello', more = {}) => client.send({ ...user(body), uid, ...more });
    const missing = await refusal(send('inst_0'));
    const untouched = await refusal(client.history());
    const created = await send(null, 'hello', { idempotencyKey: 'create' });
    const again = await refusal(send(null));
    const retried = await refusal(send(null, 'hello', { idempotencyKey: 'create' }));
    const equal = await send(created.uid);
    const different = await refusal(send('inst_0'));
    const both = await refusal(send(created.uid, 'hello', { initialData: {} }));
    await client.wait(equal);
    return { missing, untouched, created, again, retried, equal, different, both, history: await client.history() };
  },

  async initial(name) {
    const send = (id, initialData) => conversation(id, 'desk').send({ ...user('hello'), initialData });
    const valid = await send(name, { customer: 'Ada', items: 3 });
    const first = await conversation(name, 'desk').read(valid);
    const ignored = await send(name, { customer: 'Eve', items: 'none' });
    const second = await conversation(name, 'desk').read(ignored);
    const invalid = await refusal(send(`${name}-invalid`, { customer: 1 }));
    const undeclared = await refusal(conversation(`${name}-clerk`).send({ ...user('hello'), initialData: { a: 1 } }));
    const unborn = await refusal(conversation(`${name}-invalid`, 'desk').history());
    return { valid, first, second, invalid, undeclared, unborn };
  },

  async attachment(name) {
    const result = await followed(name, 'how many', [image, { ...image, filename: 'again.png' }]);
    const file = result.sse.history.messages[0].parts[1];
    const fetched = [];
    for (const url of [file.url, conversation(name).attachmentUrl(file.id), conversation(name).attachmentUrl('att_none')]) {
      const answer = await fetch(url);
      const bytes = Buffer.from(await answer.arrayBuffer());
      fetched.push({ status: answer.status, headers: Object.fromEntries(answer.headers), same: bytes.equals(png), url });
    }
    const no_image = await refusal(conversation(name).send(user('how many', [{ ...image, data: 'aGVsbG8=' }])));
    return { ...result, file, fetched, size: png.length, no_image };
  },

  async signal(name) {
    const client = conversation(name);
    const message = { kind: 'signal', type: 'slack.message', body: 'Ship it & go', attributes: { user: 'U1' }, tagName: 'slack' };
    const admission = await client.send({ message });
    const watched = watch(client, 'sse');
    await watched.settled(admission.submissionId);
    const plain = await client.send({ message: { kind: 'signal', type: 'cron', body: '' } });
    await client.wait(plain);
    await watched.settled(plain.submissionId);
    const reserved = await refusal(client.send({ message: { kind: 'signal', type: 'memory', body: '' } }));
    return { admission, plain, reply: await client.read(admission), reserved, ...(await compared(client, watched)) };
  },

  async absent(name) {
    const client = conversation(name);
    const watched = watch(client, 'sse');
    await watched.until((now) => now.phase === 'absent');
    const admission = await client.send(user('hello'));
    watched.refresh();
    await watched.settled(admission.submissionId);
    return compared(client, watched);
  },

  async middle(name) {
    const client = conversation(name);
    const admission = await client.send(user('slowly'));
    const first = watch(client, 'sse');
    await first.says('w5 ');
    const late = watch(client, 'sse');
    await Promise.all([first.settled(admission.submissionId), late.settled(admission.submissionId)]);
    return { first: await compared(client, first), late: await compared(client, late) };
  },

  async refused(name) {
    const client = conversation(name);
    const shapes = { empty_type: { kind: 'signal', type: '', body: 'x' }, bad_tag: { kind: 'signal', type: 'x', body: 'x', tagName: '1' } };
    const refusals = {};
    for (const [shape, message] of Object.entries(shapes)) refusals[shape] = await refusal(client.send({ message }));
    refusals.long_key = await refusal(client.send({ ...user('hello'), idempotencyKey: 'k'.repeat(257) }));
    refusals.no_agent = await refusal(conversation(name, 'nobody').send(user('hello')));
    refusals.history = await refusal(client.history());
    refusals.read = await refusal(client.read('sub_none'));
    return refusals;
  },

  async reply_of_state(name) {
    const { sse, admission } = await followed(name, 'show');
    return readSubmissionReply(sse.observed, admission.submissionId);
  },
});
