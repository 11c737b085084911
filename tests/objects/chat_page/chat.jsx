// A chat as an application writes it: the published hooks, and nothing else that knows of the server.

import { useAgentChat } from '@cloudflare/ai-chat/react';
import { useAgent } from 'agents/react';
import { getToolName, isToolUIPart } from 'ai';
import { Suspense, useEffect } from 'react';
import { createRoot } from 'react-dom/client';

const options = new URLSearchParams(location.search);
const where = {
  description: 'Where the person is.',
  parameters: { type: 'object', properties: { precise: { type: 'boolean' } } },
  execute: async () => ({ city: 'Oslo' }),
};

// What a test looks at: every answer that was ever shown, and what the hook reported.
window.seen = [];
window.turns = [];

function Part({ part, chat }) {
  if (part.type === 'text') return <span>{part.text}</span>;
  if (part.type === 'reasoning') return <em>{part.text}</em>;
  if (part.type.startsWith('data-')) return <code>{JSON.stringify(part.data)}</code>;
  if (!isToolUIPart(part)) return null;
  const answer = (approved) => () => chat.addToolApprovalResponse({ id: part.approval.id, approved });
  return (
    <div className="tool">
      {getToolName(part)}: {part.state}
      {part.state === 'approval-requested' && (
        <>
          <button onClick={answer(true)}>Approve</button>
          <button onClick={answer(false)}>Reject</button>
        </>
      )}
    </div>
  );
}

function Chat() {
  const agent = useAgent({ agent: 'clerk', name: options.get('name') });
  const chat = useAgentChat({
    agent,
    tools: { where },
    onToolCall: async ({ toolCall, addToolOutput }) => {
      if (toolCall.toolName !== 'where') return;
      addToolOutput({ toolCallId: toolCall.toolCallId, output: await where.execute(toolCall.input) });
    },
    onTurnEnd: (turn) => window.turns.push(turn),
  });
  useEffect(() => {
    window.chat = chat;
    const last = chat.messages.at(-1);
    if (last?.role === 'assistant') window.seen.push([last.id, textOf(last)]);
  });
  return (
    <main>
      <header>
        <b id="status">{chat.status}</b> {chat.isRecovering && 'recovering'} {chat.error?.message}
        <button onClick={() => chat.stop()}>Stop</button>
        <button onClick={() => chat.regenerate()}>Again</button>
        <button onClick={() => chat.clearHistory()}>Clear</button>
      </header>
      {chat.messages.map((message) => (
        <section key={message.id} data-role={message.role}>
          {message.parts.map((part, place) => <Part key={place} part={part} chat={chat} />)}
        </section>
      ))}
      <form onSubmit={(event) => {
        event.preventDefault();
        const field = event.target.elements.said;
        chat.sendMessage({ text: field.value });
        field.value = '';
      }}>
        <input name="said" autoComplete="off" />
      </form>
    </main>
  );
}

export const textOf = (message) => message.parts.map((part) => (part.type === 'text' ? part.text : '')).join('');

createRoot(document.getElementById('root')).render(<Suspense fallback="…"><Chat /></Suspense>);
