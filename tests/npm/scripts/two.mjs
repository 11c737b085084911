// Two servers, one store: written through the first, read through the second, and then one of them dies.

import { ask, compared, conversation, report, user, waited, watch } from './common.mjs';

const second = process.argv[4];

async function settledThere(id, body) {
  const [here, there] = [conversation(id), conversation(id, 'clerk', second)];
  const admission = await here.send(user(body));
  const watching = [watch(there, 'sse'), watch(there, 'long-poll')];
  const wait = await waited(there, { ...admission, streamUrl: there.url });
  await Promise.all(watching.map((each) => each.settled(admission.submissionId)));
  return {
    admission, wait, there: await there.read(admission.submissionId), here: await here.history(),
    sse: await compared(there, watching[0]), polled: await compared(there, watching[1]),
  };
}

const calm = {
  text: () => settledThere('shared-text', 'slowly'),

  tool: () => settledThere('shared-tool', 'weather'),

  async aborted() {
    const [here, there] = [conversation('aborted'), conversation('aborted', 'clerk', second)];
    const admission = await here.send(user('for ever'));
    const watched = watch(here, 'sse');
    await watched.says('Let me think');
    const answer = await there.abort();
    const { error } = await waited(here, admission);
    await watched.settled(admission.submissionId);
    return { answer, error, ...(await compared(there, watched)) };
  },

};

// They are over before one of the servers is killed.
const running = Object.fromEntries(Object.entries(calm).map(([name, scenario]) => [name, scenario()]));

await report({
  ...Object.fromEntries(Object.entries(running).map(([name, promise]) => [name, () => promise])),

  async taken_over() {
    const clients = [conversation('taken'), conversation('taken', 'clerk', second)];
    const admission = await clients[0].send(user('until killed'));
    const watching = clients.flatMap((client) => [watch(client, 'sse'), watch(client, 'long-poll')]);
    await Promise.all(watching.map((each) => each.says('w3 ')));
    await Promise.allSettled(Object.values(running));
    await ask('kill the speaker');
    await Promise.all(watching.map((each) => each.settled(admission.submissionId)));
    const ends = [];
    for (const [place, each] of watching.entries()) ends.push(await compared(clients[place >> 1], each));
    return { admission, ends };
  },
});
