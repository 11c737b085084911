// What waits for an answer: what is asked, by when, and the buttons. What came of it is one line.
//
// An answer names the digest of the arguments that are shown. Who answers is whom the server knows by the token.

import { createContext, useContext, useState, type FormEvent } from 'react'
import { send } from './server'
import { moment, reason } from './text'

/** Where answers of this conversation go. */
export const AnswersUrl = createContext('')

export interface Asked {
  state: 'waiting' | 'approved' | 'rejected' | 'answered' | 'expired' | 'withdrawn' | 'aborted'
  toolCallId: string
  kind: 'approval' | 'client_tool' | 'question'
  digest: string
  /** Of an object's question: who asks. */
  fiber?: string
  reason?: string
  expiresAt?: string | null
  by?: string[]
  answeredBy?: string
}

const words: Record<Asked['state'], string> = {
  waiting: '',
  approved: 'Approved',
  rejected: 'Rejected',
  answered: 'Answered',
  expired: 'Nobody answered in time',
  withdrawn: 'Withdrawn: another message came',
  aborted: 'Stopped before it was answered',
}

interface Props {
  asked: Asked
  tool: string
  isWorking: boolean
  /** The server has an answer, this one or another. */
  answered?(): void
}

export function Question({ asked, tool, isWorking, answered }: Props) {
  if (asked.state === 'waiting') return isWorking ? <Waiting asked={asked} tool={tool} answered={answered} /> : null
  const by = asked.answeredBy ? ` by ${asked.answeredBy}` : ''
  return (
    <p className="question over" data-question={asked.state}>
      {words[asked.state]}
      {by}.
    </p>
  )
}

const asks: Record<Asked['kind'], string> = {
  approval: 'May it run?',
  client_tool: 'This call waits for a client.',
  question: 'An answer is asked for.',
}

function Waiting({ asked, tool, answered }: Omit<Props, 'isWorking'>) {
  const url = useContext(AnswersUrl)
  const [isBusy, setBusy] = useState(false)
  const [isRejecting, setRejecting] = useState(false)
  const [why, setWhy] = useState('')
  const [trouble, setTrouble] = useState('')
  const isApproval = asked.kind === 'approval'
  const isValue = asked.kind === 'question'

  async function answer(body: Record<string, unknown>) {
    setBusy(true)
    setTrouble('')
    try {
      await send(url, { call: asked.toolCallId, digest: asked.digest, ...(asked.fiber && { fiber: asked.fiber }), ...body })
      answered?.()
    } catch (error) {
      setTrouble(reason(error))
      setBusy(false)
    }
  }

  function reject(event: FormEvent) {
    event.preventDefault()
    void answer({ answer: 'reject', ...(why.trim() && { reason: why.trim() }) })
  }

  return (
    <section className="question" data-question="waiting" aria-label={`${tool} waits for an answer`}>
      <p>
        {asks[asked.kind]}
        {asked.reason && <span className="why"> {asked.reason}</span>}
      </p>
      <p className="soft">
        {asked.expiresAt && `Until ${moment(asked.expiresAt)}. `}
        {asked.by && `To be answered by ${asked.by.join(' or ')}.`}
      </p>
      {isValue && <ValueForm isBusy={isBusy} give={(output) => void answer({ answer: 'output', output })} />}
      {isValue ? null : isRejecting ? (
        <form onSubmit={reject}>
          <input autoFocus value={why} onChange={(event) => setWhy(event.target.value)} maxLength={4000} aria-label="Reason" placeholder="Reason, for the agent" />
          <button type="submit" disabled={isBusy}>
            Reject
          </button>
          <button type="button" className="quiet" onClick={() => setRejecting(false)} disabled={isBusy}>
            Back
          </button>
        </form>
      ) : (
        <div className="choices">
          {isApproval && (
            <button type="button" className="accent" onClick={() => void answer({ answer: 'approve' })} disabled={isBusy}>
              Approve
            </button>
          )}
          <button type="button" onClick={() => setRejecting(true)} disabled={isBusy}>
            Reject…
          </button>
        </div>
      )}
      {trouble && (
        <p className="trouble" role="alert">
          {trouble}
        </p>
      )}
    </section>
  )
}

function ValueForm({ isBusy, give }: { isBusy: boolean; give(value: unknown): void }) {
  const [text, setText] = useState('')
  const submit = (event: FormEvent) => {
    event.preventDefault()
    give(valueOf(text))
  }
  return (
    <form onSubmit={submit}>
      <input value={text} onChange={(event) => setText(event.target.value)} aria-label="Answer" placeholder="JSON, or a text" required />
      <button type="submit" className="accent" disabled={isBusy}>
        Answer
      </button>
    </form>
  )
}

/** JSON as what it says; anything else is a text. */
function valueOf(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}
