// Two servers on one store, a client of the published package on each: one object, whoever runs it.

import { ask, base, client, report } from './agent_common.mjs';

const second = process.argv[4];

await report({
  async together(name) {
    const here = client(name, { host: base });
    await here.ready;
    await here.call('add', [1]); // this server runs it from now on
    const there = client(name, { host: second });
    await there.ready;
    const begun = there.state;

    here.setState({ count: 10, names: [] });
    await there.until(() => there.state.count === 10);
    there.setState({ count: 20, names: [] });
    await here.until(() => here.state.count === 20);
    const forwarded = await there.call('add', [1]);
    const behind = there.state.count !== 21;
    await here.until(() => here.state.count === 21);
    there.send('from there');
    here.send('from here');
    await Promise.all([here.until(() => here.seen.raw.includes('local: from there')), there.until(() => there.seen.raw.includes('local: from here'))]);
    const chunks = [];
    const stream = await there.tried('up_to', [4], { stream: { onChunk: (chunk) => chunks.push(chunk) } });
    const errors = await Promise.all(['fail', 'nope', 'hidden'].map((method) => there.tried(method)));
    there.setState({ count: -1, names: [] });
    await there.until(() => there.seen.errors.length === 1);
    const both = await there.call('look');

    await ask('kill the first');
    const after = await there.tried('add', [1]);
    await there.until(() => there.state.names.includes('left 1006'));
    const alone = await there.call('look');
    return {
      begun, forwarded, behind, chunks, stream, errors, refused: there.seen.errors, both: both.connections.length, after,
      alone: alone.connections.length === 1 && alone.connections[0] === there._pk,
    };
  },
});
process.exit(0);
