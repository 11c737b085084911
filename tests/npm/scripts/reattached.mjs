// A process that knows nothing but a conversation and the id of a submission, which another process sent.

import { conversation, refusal, report } from './common.mjs';

const [id, ...submissions] = process.argv.slice(4);

await report({
  reads: () => Promise.all(submissions.map((submission) => refusal(conversation(id).read(submission)))),
  history: () => conversation(id).history(),
});
