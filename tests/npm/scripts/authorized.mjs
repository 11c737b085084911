// Clients with tokens: the right one, one for something else, none; a token that is renewed, and one that is taken away.

import { ask, base, compared, conversation, refusal, report, user, watch } from './common.mjs';

const [right, reader, spare] = process.argv.slice(4);
const with_ = (id, options) => conversation(id, 'clerk', base, options);

await report({
  async right(name) {
    const client = with_(name, { token: right });
    const admission = await client.send(user('weather'));
    const watching = ['sse', 'long-poll'].map((live) => watch(client, live));
    const read = await client.read(admission);
    await Promise.all(watching.map((each) => each.settled(admission.submissionId)));
    return { read, sse: await compared(client, watching[0]), polled: await compared(client, watching[1]) };
  },

  async others(name) {
    const owner = with_(name, { token: right });
    await owner.wait(await owner.send(user('hello')));
    const nobody = conversation(name);
    const wrong = with_(name, { token: 'cairn_wrong' });
    const onlyReads = with_(name, { token: reader });
    return {
      none: await refusal(nobody.history()),
      wrong: await refusal(wrong.send(user('hello'))),
      reads: await refusal(onlyReads.history()),
      sends: await refusal(onlyReads.send(user('hello'))),
      aborts: await refusal(onlyReads.abort()),
      elsewhere: await refusal(with_('elsewhere', { token: reader }).history()),
      missing: await refusal(with_(`${name}-missing`, { token: right }).history()),
    };
  },

  async revoked(name) {
    const owner = with_(name, { token: right });
    await owner.wait(await owner.send(user('hello')));
    // Headers are asked for at every request: the application renews its credential while it follows.
    let token = spare;
    const renewing = watch(with_(name, { headers: () => ({ authorization: `Bearer ${token}` }) }), 'sse');
    const stubborn = watch(with_(name, { token: spare }), 'sse');
    const live = (now) => now.phase === 'live';
    await Promise.all([renewing.until(live), stubborn.until(live)]);
    await ask('revoke');
    token = right;
    await stubborn.until((now) => now.phase === 'error');
    const after = await owner.send(user('think'));
    await renewing.settled(after.submissionId);
    return {
      stubborn: { error: stubborn.now().error?.status, text: stubborn.now().conversation?.messages.length },
      ...(await compared(owner, renewing)),
    };
  },
});
