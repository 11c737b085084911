// A page of an application: one room through the published `useAgent`, shown so that a person could use it.
// `?name=&agent=&sub=&host=&key=` say which; `window.room` is the hook's agent.

import { useAgent } from 'agents/react';
import { Suspense, useState } from 'react';
import { createRoot } from 'react-dom/client';

const given = new URLSearchParams(location.search);
const token = given.get('key');
const sub = given.get('sub');

function Room() {
  const [state, setState] = useState();
  const [said, setSaid] = useState([]);
  const [is, setIs] = useState('connecting');
  const tell = (text) => setSaid((before) => [...before, text]);
  const room = useAgent({
    agent: given.get('agent') ?? 'Room',
    name: given.get('name') ?? 'lobby',
    host: given.get('host') ?? location.host,
    ...(sub && { sub: [{ agent: 'Desk', name: sub }] }),
    ...(token && { protocols: ['cairn', `cairn.token.${token}`] }),
    minReconnectionDelay: 50,
    maxReconnectionDelay: 300,
    onStateUpdate: setState,
    onStateUpdateError: (error) => tell(`refused: ${error}`),
    onMessage: ({ data }) => { if (!data.startsWith('{')) tell(data); },
    onOpen: () => setIs('open'),
    onClose: () => setIs('closed'),
    onConnectionError: (error) => tell(`over: ${error.code} ${error.message}`),
  });
  window.room = room;
  const call = (method, ...args) => room.call(method, args).then((value) => tell(`${method}: ${JSON.stringify(value)}`), (error) => tell(`${method} failed: ${error.message}`));
  const count = async () => {
    const chunks = [];
    await room.call('up_to', [4], { stream: { onChunk: (chunk) => chunks.push(chunk) } });
    tell(`counted ${chunks.join(' ')}`);
  };
  return (
    <main>
      <h1>{room.agent} / {room.name} <small data-testid="is">{is}</small></h1>
      <output data-testid="state">{JSON.stringify(state ?? null)}</output>
      <p>
        <button onClick={() => call('add', 1)}>Add</button>
        <button onClick={() => call('fail')}>Fail</button>
        <button onClick={count}>Count</button>
        <button onClick={() => room.setState({ ...state, names: [...(state?.names ?? []), 'me'] })}>Sign</button>
        <button onClick={() => room.setState({ ...state, count: -1 })}>Spoil</button>
        <button onClick={() => room.send('hello')}>Greet</button>
      </p>
      <ul data-testid="said">{said.map((text, number) => <li key={number}>{text}</li>)}</ul>
    </main>
  );
}

createRoot(document.getElementById('root')).render(<Suspense><Room /></Suspense>);
