// One message of a conversation.

import type { FlueConversationMessage, FlueConversationPart, FlueConversationSettlement } from '@flue/react'
import { memo } from 'react'
import { Markdown } from './markdown'
import { DataCard, FileCard, Thinking, ToolCall, type FilePart } from './parts'
import { Question, type Asked } from './question'
import { reason } from './text'

const PROGRESS = 'data-tool-progress:'
const QUESTION = 'data-question:'

interface Props {
  message: FlueConversationMessage
  /** Whether its submission has no outcome yet. */
  isWorking: boolean
  /** Whether it was interrupted and went on. */
  isContinued?: boolean
  /** How the submission ended that this message is the notice of. */
  settlement?: FlueConversationSettlement
}

// The hook makes new objects of messages it did not change; their parts stay the same.
const isSame = (a: Props, b: Props) =>
  a.message.id === b.message.id &&
  a.message.parts === b.message.parts &&
  a.message.submissionId === b.message.submissionId &&
  a.isWorking === b.isWorking &&
  a.isContinued === b.isContinued &&
  a.settlement === b.settlement

export const Message = memo(function Message(props: Props) {
  const { message } = props
  if (message.role === 'user') return <Said message={message} />
  if (message.role === 'assistant') return <Answer {...props} />
  if (message.settlement) return <Notice {...props} />
  return <Aside message={message} />
}, isSame)

function Said({ message }: { message: FlueConversationMessage }) {
  const files = message.parts.filter((part): part is FilePart => part.type === 'file')
  const text = textOf(message)
  return (
    <article className="said" data-pending={message.submissionId === undefined || undefined}>
      <h2 className="unseen">You</h2>
      {files.length > 0 && (
        <div className="files">
          {files.map((file, index) => (
            <FileCard key={file.id ?? index} part={file} />
          ))}
        </div>
      )}
      {text && <div className="bubble">{text}</div>}
    </article>
  )
}

function Answer({ message, isWorking, isContinued }: Props) {
  if (message.parts.length === 0) return null
  const progress = beside(message.parts, PROGRESS)
  const asked = beside(message.parts, QUESTION)
  return (
    <article className="answer" aria-busy={isWorking}>
      <h2 className="unseen">Agent</h2>
      {(isContinued ? joined(message.parts) : message.parts).map((part, index) => (
        <AnswerPart key={index} part={part} progress={progress} asked={asked} isWorking={isWorking} />
      ))}
    </article>
  )
}

/** Texts that follow each other, as one: an interruption may have come in the middle of a word. */
function joined(parts: FlueConversationPart[]): FlueConversationPart[] {
  return parts.reduce<FlueConversationPart[]>((before, part) => {
    const last = before.at(-1)
    if (part.type !== 'text' || last?.type !== 'text') return [...before, part]
    return [...before.slice(0, -1), { ...part, text: last.text + part.text }]
  }, [])
}

interface PartProps {
  part: FlueConversationPart
  progress: Map<string, unknown>
  asked: Map<string, unknown>
  isWorking: boolean
}

function AnswerPart({ part, progress, asked, isWorking }: PartProps) {
  switch (part.type) {
    case 'text':
      return <Markdown text={part.text} isGrowing={part.state === 'streaming'} />
    case 'reasoning':
      return <Thinking text={part.text} isGrowing={part.state === 'streaming' && isWorking} />
    case 'dynamic-tool':
      return (
        <ToolCall
          part={part}
          progress={progress.get(part.toolCallId)}
          asked={asked.get(part.toolCallId) as Asked | undefined}
          isWorking={isWorking}
        />
      )
    case 'file':
      return <FileCard part={part} />
    default:
      if (part.type.startsWith(QUESTION)) return <ProgramQuestion asked={part.data as ProgramAsked} isWorking={isWorking} />
      return part.type.startsWith(PROGRESS) ? null : <DataCard name={part.type.slice('data-'.length)} data={part.data} />
  }
}

type ProgramAsked = Asked & { program?: string; toolName: string; input: unknown }

/** What a program of this message asks: it has no call of its own. Others are shown at their calls. */
function ProgramQuestion({ asked, isWorking }: { asked: ProgramAsked; isWorking: boolean }) {
  if (!asked.program) return null
  return (
    <div className="call" data-program-asks={asked.toolName}>
      <DataCard name={asked.toolName} data={asked.input} />
      <Question asked={asked} tool={asked.toolName} isWorking={isWorking} />
    </div>
  )
}

type DataPart = Extract<FlueConversationPart, { type: `data-${string}` }>

/** What is shown beside calls, by the call: data whose names begin so. */
function beside(parts: FlueConversationPart[], prefix: string): Map<string, unknown> {
  const found = parts.filter((part): part is DataPart => part.type.startsWith(prefix))
  return new Map(found.map((part) => [part.type.slice(prefix.length), part.data]))
}

/** How a submission ended that did not complete. */
export function Notice({ message, settlement }: Pick<Props, 'message' | 'settlement'>) {
  const text = textOf(message)
  const why = settlement?.error === undefined ? '' : reason(settlement.error)
  const isAborted = message.settlement?.outcome === 'aborted'
  return (
    <article className={isAborted ? 'notice' : 'notice failed'} role={isAborted ? undefined : 'alert'}>
      {isAborted ? 'Aborted.' : <Failure text={text} why={why} />}
    </article>
  )
}

function Failure({ text, why }: { text: string; why: string }) {
  return (
    <>
      <strong>The answer failed.</strong>
      <div className="why">{text || why}</div>
      {text && why && !text.includes(why) && <div className="why">{why}</div>}
    </>
  )
}

/** What is neither said nor answered: signals, and what the agent was told on the way. */
function Aside({ message }: { message: FlueConversationMessage }) {
  const name = message.signal?.tagName ?? (message.purpose === 'dispatch' ? 'signal' : 'note')
  return (
    <details className="aside">
      <summary>{name}</summary>
      <div className="plain">{textOf(message)}</div>
      {message.signal?.attributes && <pre className="wide">{JSON.stringify(message.signal.attributes, null, 2)}</pre>}
    </details>
  )
}

export function textOf(message: FlueConversationMessage): string {
  return message.parts
    .filter((part) => part.type === 'text')
    .map((part) => part.text)
    .join('\n')
}
