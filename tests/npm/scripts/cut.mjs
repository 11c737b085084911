// Connections that break off: at every boundary between two events and in the middle of every one, in a live text. The network
// is worse than usual (the `fetch` that an application may give to the client), the client is what it is.

import { base, compared, conversation, report, user, waited, watch } from './common.mjs';

const PLACES = 20;
const BLANK_LINE = '\n\n';

/** A body that ends after so many whole events and so many bytes: broken, or as if it were complete. */
function cutter({ events, bytes, broken }, done) {
  let before = '';
  let left = events;
  return new TransformStream({
    transform(chunk, control) {
      const text = before + Buffer.from(chunk).toString('latin1');
      let end = 0;
      while (left > 0) {
        const found = text.indexOf(BLANK_LINE, end);
        if (found < 0) break;
        end = found + BLANK_LINE.length;
        left -= 1;
      }
      if (left > 0 || text.length < end + bytes) {
        before = text.slice(-1);
        control.enqueue(chunk);
        return;
      }
      done();
      control.enqueue(chunk.slice(0, Math.max(0, end + bytes - before.length)));
      if (broken) control.error(new TypeError('terminated'));
      else control.terminate();
    },
  });
}

/** `fetch`, but one live answer breaks off: the `answer`th, at the place that is given. */
function breaking({ live, answer = 0, ...place }) {
  const state = { cut: 0, seen: 0 };
  const own = async (url, init) => {
    const found = await fetch(url, init);
    if (!String(url).includes(`live=${live}`) || state.seen++ !== answer || !found.body) return found;
    const body = found.body.pipeThrough(cutter(place, () => { state.cut += 1; }));
    return new Response(body, { status: found.status, headers: found.headers });
  };
  return { own, state };
}

await report({
  async observers(name) {
    const client = conversation(name);
    await client.wait(await client.send(user('hello')));
    // However much of the text comes at once, there are these first events and answers; the later ones when it comes in pieces.
    const cuts = [];
    for (let place = 0; place < PLACES; place += 1) {
      for (const [index, bytes] of [0, 9, 40 + place].entries()) {
        cuts.push({ live: 'sse', events: place, bytes, broken: (place + index) % 2 === 0 });
        cuts.push({ live: 'long-poll', answer: place, events: 0, bytes: 1 + bytes, broken: true });
      }
    }
    const watching = cuts.map((cut) => {
      const { own, state } = breaking(cut);
      const reader = conversation(name, 'clerk', base, { fetch: own });
      return { cut, state, reader, watched: watch(reader, cut.live) };
    });
    await Promise.all(watching.map(({ watched }) => watched.until((now) => now.phase === 'live')));

    const admission = await client.send(user('at length'));
    const wait = waited(client, admission);
    await Promise.all(watching.map(({ watched }) => watched.settled(admission.submissionId)));

    const ends = [];
    for (const { cut, state, reader, watched } of watching) ends.push({ cut, was: state.cut, ...(await compared(reader, watched)) });
    return { wait: await wait, ends };
  },
});
