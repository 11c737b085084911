// Life after life: each one adds a little to one answer, and ends in the middle of it.

import { ask, compared, conversation, LONG, report, textOf, user, waited, watch } from './common.mjs';

const LITTLE = 60;

await report({
  async storm(name) {
    const client = conversation(name);
    const admission = await client.send(user('a little at a time'));
    const watching = [watch(client, 'sse'), watch(client, 'long-poll')];
    const waiting = waited(client, admission);
    let lives = 0;
    for (let length = LITTLE; length < LONG.length; length += LITTLE) {
      const long = (now) => now.conversation && textOf(now.conversation).length >= length;
      await Promise.all(watching.map((each) => each.until(long)));
      await ask('next life');
      lives += 1;
    }
    await Promise.all(watching.map((each) => each.settled(admission.submissionId)));
    const [sse, polled] = [await compared(client, watching[0]), await compared(client, watching[1])];
    return { lives, wait: await waiting, sse, polled };
  },
});
