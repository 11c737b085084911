// The messages, kept at their end while one is there.

import type { FlueConversationMessage, FlueConversationSettlement } from '@flue/react'
import { useCallback, useLayoutEffect, useMemo, useRef, useState, type ReactNode } from 'react'
import { Icon } from './icons'
import { Message, Notice } from './message'
import { openSubmissions } from './use-conversation'

/** Messages that are shown before one asks for earlier ones: a page stays quick in a conversation of thousands. */
const LAST_MESSAGES = 100
/** Pixels from the end that still count as being there. */
const NEAR_PX = 60

interface Props {
  messages: FlueConversationMessage[]
  settlements: FlueConversationSettlement[]
  isWorking: boolean
  /** Counts what was sent from here: whoever sends wants to see it. */
  sent: number
  empty: ReactNode
}

export function Transcript({ messages, settlements, isWorking, sent, empty }: Props) {
  const [count, setCount] = useState(LAST_MESSAGES)
  const { frame, isAtEnd, toEnd } = useEnd(messages, sent)
  const open = useMemo(() => openSubmissions(messages, settlements), [messages, settlements])
  const outcomes = useMemo(() => new Map(settlements.map((one) => [one.submissionId, one])), [settlements])
  const visible = messages.filter((message) => message.display !== 'hidden')
  const continued = useMemo(() => continuedAnswers(messages), [messages])
  const last = visible.at(-1)
  const isSilent = isWorking && !last?.parts.some((part) => 'state' in part && (part.state === 'streaming' || part.state === 'input-available'))

  return (
    <div className="frame">
      <div className="scroll" ref={frame} tabIndex={0} role="log" aria-label="Conversation">
        <div className="column">
          {visible.length === 0 && !isWorking && empty}
          {visible.length > count && (
            <button type="button" className="quiet earlier" onClick={() => setCount(count + LAST_MESSAGES)}>
              Show earlier messages ({visible.length - count})
            </button>
          )}
          {visible.slice(-count).map((message) => (
            <Message
              key={message.id}
              message={message}
              isWorking={message.submissionId !== undefined && open.has(message.submissionId)}
              isContinued={continued.has(message.id)}
              settlement={message.settlement && outcomes.get(settledBy(message) ?? '')}
            />
          ))}
          {untold(messages, settlements).map((settlement) => (
            <Notice key={settlement.submissionId} message={standIn(settlement)} settlement={settlement} />
          ))}
          {isSilent && (
            <div className="working" role="status">
              <span className="spinner" /> Working…
            </div>
          )}
        </div>
      </div>
      {!isAtEnd && (
        <button type="button" className="to-end square" onClick={toEnd} aria-label="Go to the end" title="Go to the end">
          <Icon name="down" />
        </button>
      )}
    </div>
  )
}

/** Answers that were interrupted and went on: hidden advisories say so, right after them. */
function continuedAnswers(messages: FlueConversationMessage[]): Set<string> {
  const found = new Set<string>()
  let answer = ''
  for (const message of messages) {
    if (message.role === 'assistant') answer = message.id
    else if (message.purpose === 'advisory' && message.display === 'hidden') found.add(answer)
  }
  return found
}

/** The submission whose end a notice tells. */
function settledBy(message: FlueConversationMessage): string | undefined {
  return message.submissionId ?? message.signal?.attributes?.submissionId
}

/** The last submission, when it failed and no message says so. */
function untold(messages: FlueConversationMessage[], settlements: FlueConversationSettlement[]): FlueConversationSettlement[] {
  const last = settlements.at(-1)
  if (last?.outcome !== 'failed') return []
  return messages.some((message) => message.settlement && settledBy(message) === last.submissionId) ? [] : [last]
}

function standIn(settlement: FlueConversationSettlement): FlueConversationMessage {
  const id = `outcome:${settlement.submissionId}`
  return { id, role: 'system', purpose: 'advisory', display: 'visible', settlement: { outcome: 'failed' }, parts: [] }
}

/** Keeps the end in sight while the reader is there, and leaves a reader who scrolled up alone. */
function useEnd(messages: unknown, sent: number) {
  const frame = useRef<HTMLDivElement>(null)
  const isHeld = useRef(true)
  const [isAtEnd, setAtEnd] = useState(true)

  const toEnd = useCallback(() => {
    isHeld.current = true
    setAtEnd(true)
    frame.current?.scrollTo({ top: frame.current.scrollHeight })
  }, [])
  useLayoutEffect(toEnd, [toEnd, sent])

  useLayoutEffect(() => {
    const area = frame.current!
    const hold = () => isHeld.current && area.scrollTo({ top: area.scrollHeight })
    const look = () => {
      isHeld.current = area.scrollHeight - area.scrollTop - area.clientHeight < NEAR_PX
      setAtEnd(isHeld.current)
    }
    // Pictures, fonts and opened details change the height without a message.
    const sizes = new ResizeObserver(hold)
    sizes.observe(area)
    sizes.observe(area.firstElementChild!)
    area.addEventListener('scroll', look, { passive: true })
    return () => {
      sizes.disconnect()
      area.removeEventListener('scroll', look)
    }
  }, [])

  useLayoutEffect(() => {
    if (isHeld.current) frame.current!.scrollTo({ top: frame.current!.scrollHeight })
  }, [messages])

  return { frame, isAtEnd, toEnd }
}
