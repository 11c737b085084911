// What the published packages put together from chunks: by the AI SDK, as the tab that asked does, and by the agents package,
// as every other tab does. One JSON document of cases in, the messages out.

import { readFileSync } from 'node:fs';
import { StreamAccumulator } from 'agents/chat';
import { readUIMessageStream } from 'ai';

const cases = JSON.parse(readFileSync(process.argv[2], 'utf8'));

async function byTheSdk(chunks) {
  const errors = [];
  const stream = new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(chunk);
      controller.close();
    },
  });
  let last = null;
  const messages = readUIMessageStream({ stream, onError: (error) => errors.push(String(error)), terminateOnError: true });
  for await (const message of messages) last = message;
  return { message: last, errors };
}

function byTheAgents(chunks) {
  const accumulator = new StreamAccumulator({ messageId: 'unnamed' });
  for (const chunk of chunks) accumulator.applyChunk(chunk);
  return accumulator.toMessage();
}

const found = [];
for (const chunks of cases) found.push({ sdk: await byTheSdk(chunks), agents: byTheAgents(chunks) });
console.log(JSON.stringify({ result: found }));
