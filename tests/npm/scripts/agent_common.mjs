// What every scenario of the published `agents` client uses: clients that remember what they saw, and a voice to the test.
//
// Laws. Nothing here touches the wire: frames are the published package's alone. What is waited for is a fact, never a time.

import { AgentClient } from 'agents/client';
import { base } from './common.mjs';

export { ask, base, report } from './common.mjs';

// Node 22 has one, as browsers do; before, the package that everybody uses.
globalThis.WebSocket ??= (await import('ws')).WebSocket;

/** A client of a room, and all it was told: `states` with who set them, `errors`, `raw` messages, `closed` codes. */
export function client(name, options = {}) {
  const seen = { states: [], errors: [], raw: [], closed: [], identities: [], connectionErrors: [] };
  const waiting = new Set();
  const look = () => { for (const each of [...waiting]) each(); };
  const note = (list, value) => { list.push(value); look(); };
  const made = new AgentClient({
    agent: 'Room',
    name,
    host: base,
    minReconnectionDelay: 50,
    maxReconnectionDelay: 300,
    onStateUpdate: (state, source) => note(seen.states, [state, source]),
    onStateUpdateError: (error) => note(seen.errors, error),
    onIdentity: (...identity) => note(seen.identities, identity),
    onIdentityChange: (...change) => note(seen.identities, ['changed', ...change]),
    onConnectionError: (error) => note(seen.connectionErrors, { message: error.message, code: error.code }),
    ...options,
  });
  made.addEventListener('message', ({ data }) => {
    if (typeof data !== 'string' || !data.startsWith('{')) note(seen.raw, typeof data === 'string' ? data : 'binary');
  });
  made.addEventListener('close', ({ code }) => note(seen.closed, code));
  made.addEventListener('open', look);
  return Object.assign(made, {
    seen,
    look,
    /** When the condition holds. */
    until: (condition) => new Promise((resolve) => {
      const check = () => { if (condition()) { waiting.delete(check); resolve(); } };
      waiting.add(check);
      check();
    }),
    /** What a call came to: `{ result }` or `{ error }`. */
    tried: (method, args = [], options = undefined) => made.call(method, args, options).then((result) => ({ result }), (error) => ({ error: error.message })),
  });
}
