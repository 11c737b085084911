// The published `AgentClient` on durable objects: what it sees and gets, everything at once.

import { agentFetch } from 'agents/client';
import { base, client, report } from './agent_common.mjs';

const on = (agent, name, options = {}) => client(name, { agent, ...options });

await report({
  async greeted(name) {
    const one = client(`${name} ä`);
    await one.ready;
    return { state: one.state, name: one.name, agent: one.agent, identified: one.identified, identities: one.seen.identities };
  },

  async shared(name) {
    const [sender, other] = [client(name), client(name)];
    await Promise.all([sender.ready, other.ready]);
    sender.setState({ count: 7, names: ['x'] });
    await other.until(() => other.state.count === 7);
    await sender.call('look');
    const late = client(name);
    await late.ready;
    return { sender: sender.seen.states, other: other.seen.states, late: late.state };
  },

  async called(name) {
    const one = client(name);
    await one.ready;
    const added = await one.call('add', [2]);
    const behind = one.state.count !== 2;
    const stub = await one.stub.add(3);
    const many = await Promise.all(Array.from({ length: 100 }, () => one.call('add', [1])));
    const errors = await Promise.all(['fail', 'hidden', 'nope'].map((method) => one.tried(method)));
    return { added, behind, stub, many: many.sort((a, b) => a - b), errors, state: one.state };
  },

  async streamed(name) {
    const one = client(name);
    await one.ready;
    const run = async (args) => {
      const heard = [];
      const stream = {
        onChunk: (chunk) => heard.push(chunk),
        onDone: (value) => heard.push(['done', value]),
        onError: (error) => heard.push(['error', error]),
      };
      return { ...(await one.tried('up_to', args, { stream })), heard };
    };
    return Promise.all([run([3]), run([0]), run([5, 2])]);
  },

  async refused(name) {
    const one = client(name);
    await one.ready;
    one.setState({ count: -1, names: [] });
    one.setState({ count: 'many' });
    await one.until(() => one.seen.errors.length === 2);
    return { errors: one.seen.errors, there: (await one.call('look')).count };
  },

  async readonly(name) {
    const one = on('Hall', name);
    await one.ready;
    one.setState({ count: 1, names: [] });
    await one.until(() => one.seen.errors.length === 1);
    return { errors: one.seen.errors, call: await one.tried('set', [3]) };
  },

  async plain(name) {
    const one = on('Hall', name, { query: { plain: '1' } });
    one.send('hi');
    await one.until(() => one.seen.raw.length > 0);
    return { identified: one.identified, states: one.seen.states, raw: one.seen.raw, call: await one.tried('set', [3]) };
  },

  async spoken(name) {
    const [one, other] = [client(name), client(name)];
    await Promise.all([one.ready, other.ready]);
    one.send('hello');
    one.send(new Uint8Array([1, 2, 3]));
    await Promise.all([other.until(() => other.seen.raw.includes('local: hello')), one.until(() => one.seen.raw.includes('binary'))]);
    return { one: one.seen.raw, other: other.seen.raw };
  },

  async slow(name) {
    const one = client(name);
    await one.ready;
    const call = await one.tried('wait', [0.4], { timeout: 50 });
    return { call, after: await one.tried('add', [1]) };
  },

  async below(name) {
    const room = client(name);
    await room.ready;
    await room.call('greet', ['a/ä']);
    const desk = client(name, { path: `sub/desk/${encodeURIComponent('a/ä')}` });
    await desk.ready;
    const noted = await desk.call('note', ['by wire']);
    const missing = client(name, { path: 'sub/desk/missing' });
    await missing.until(() => missing.seen.connectionErrors.length > 0);
    return { identity: desk.seen.identities, noted, state: desk.state, missing: missing.seen.connectionErrors };
  },

  async asked(name) {
    const options = { agent: 'Room', name, host: base, path: 'x/y' };
    const answer = await agentFetch(options, { method: 'POST', body: 'b', headers: { authorization: 'Bearer secret', 'x-own': '1' } });
    const odd = await agentFetch({ agent: 'MyE2EThing', name, host: base });
    return { status: answer.status, told: await answer.json(), odd: await odd.text() };
  },

  async stopped(name) {
    const over = async (one) => {
      await one.until(() => one.seen.connectionErrors.length > 0);
      return { codes: one.seen.closed, ...one.seen.connectionErrors[0], later: await one.tried('look') };
    };
    const closing = client(`${name}1`);
    await closing.ready;
    closing.send('close');
    const gone = client(`${name}2`);
    await gone.ready;
    const leaving = gone.tried('leave');
    return {
      refused: await over(client(name, { query: { refuse: '1' } })),
      unknown: await over(on('Nobody', name)),
      closing: await over(closing),
      gone: await over(gone),
      leaving: await leaving,
    };
  },
});
process.exit(0);
