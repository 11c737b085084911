// What the published `AgentClient` sees when the server under it is killed and another one takes its place.

import { ask, client, report } from './agent_common.mjs';

await report({
  async through(name) {
    const [one, other] = [client(name), client(name)];
    await Promise.all([one.ready, other.ready]);
    await one.call('add', [5]);
    one.setState({ count: 6, names: ['kept'] });
    await other.until(() => other.state.count === 6);
    const chunks = [];
    const streaming = one.tried('endless', [], { stream: { onChunk: (chunk) => { chunks.push(chunk); one.look(); } } });
    await one.until(() => chunks.length > 2);
    const before = [one.seen.states.length, other.seen.states.length];
    await ask('the end');
    await Promise.all([one, other].map((each) => each.until(() => each.seen.closed.length > 0)));
    const cut = await streaming;
    const buffered = one.tried('add', [1]); // it waits in the client until there is a server again
    await ask('the next life');
    const result = await buffered;
    await Promise.all([one, other].map((each) => each.until(() => each.state.count === 7)));
    await Promise.all([one.ready, other.ready]);
    const seen = (each, from) => each.seen.states.slice(from).map(([state]) => state.count);
    const there = await other.call('look');
    return {
      cut,
      result,
      states: [seen(one, before[0]), seen(other, before[1])],
      names: [one.state.names, other.state.names],
      same: there.connections.includes(one._pk) && there.connections.includes(other._pk),
      connections: there.connections.length,
      changed: [...one.seen.identities, ...other.seen.identities].filter(([word]) => word === 'changed'),
      errors: [...one.seen.connectionErrors, ...other.seen.connectionErrors],
    };
  },
});
process.exit(0);
