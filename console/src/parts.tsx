// The parts of an answer beside its text: thinking, tool calls, data, files. All of it is shown as text.

import type { FlueConversationPart } from '@flue/react'
import { useEffect, useState } from 'react'
import { useCell } from './cell'
import { Icon } from './icons'
import { Markdown } from './markdown'
import { Question, type Asked } from './question'
import { isTokenNeeded, request, token } from './server'
import { brief, bytes, duration, shown } from './text'

type Part<T extends FlueConversationPart['type']> = Extract<FlueConversationPart, { type: T }>
export type ToolPart = Part<'dynamic-tool'>
export type FilePart = Part<'file'>

/** Characters of a value that are shown before one asks for the rest. */
const FIRST_CHARACTERS = 10_000

function Value({ label, value }: { label: string; value: unknown }) {
  const [isWhole, setWhole] = useState(false)
  const text = shown(value)
  const isCut = !isWhole && text.length > FIRST_CHARACTERS
  return (
    <div className="value">
      <div className="label">{label}</div>
      <pre className="wide" tabIndex={0}>
        {isCut ? text.slice(0, FIRST_CHARACTERS) : text}
      </pre>
      {isCut && (
        <button type="button" className="quiet" onClick={() => setWhole(true)}>
          Show all {text.length.toLocaleString()} characters
        </button>
      )}
    </div>
  )
}

export function Thinking({ text, isGrowing }: { text: string; isGrowing: boolean }) {
  const [chosen, choose] = useState<boolean>()
  if (!text.trim() && !isGrowing) return null
  const isOpen = chosen ?? isGrowing
  return (
    <details className="thinking" open={isOpen}>
      <summary onClick={(event) => (event.preventDefault(), choose(!isOpen))}>{isGrowing ? 'Thinking…' : 'Thought'}</summary>
      <Markdown text={text} isGrowing={isGrowing} />
    </details>
  )
}

const states = {
  running: { word: 'running', icon: undefined },
  waiting: { word: 'waiting for an answer', icon: 'wait' },
  ended: { word: 'ended without a result', icon: 'failed' },
  'output-available': { word: 'done', icon: 'done' },
  'output-error': { word: 'failed', icon: 'failed' },
} as const

interface ToolProps {
  part: ToolPart
  progress?: unknown
  asked?: Asked
  isWorking: boolean
}

export function ToolCall(props: ToolProps) {
  const { part, asked, isWorking } = props
  if (!asked) return <CallLine {...props} />
  return (
    <div className="call">
      <CallLine {...props} />
      <Question asked={asked} tool={part.toolName} isWorking={isWorking} />
    </div>
  )
}

function CallLine({ part, progress, asked, isWorking }: ToolProps) {
  const open = !isWorking ? 'ended' : asked?.state === 'waiting' ? 'waiting' : 'running'
  const state = part.state === 'input-available' ? open : part.state
  const { word, icon } = states[state]
  const line = part.state === 'output-error' ? part.errorText : state === 'running' ? progressText(progress) : ''
  return (
    // Whoever is asked sees all that would run, without a click.
    <details className={`tool ${state}`} data-tool={part.toolName} data-state={state} open={state === 'waiting' || undefined}>
      <summary>
        <span className="state" title={word}>
          {icon ? <Icon name={icon} /> : <span className="spinner" />}
          <span className="unseen">{word}: </span>
        </span>
        <span className="name">{part.toolName}</span>
        <span className="brief">{brief(part.input)}</span>
        {part.durationMs !== undefined && <span className="duration">{duration(part.durationMs)}</span>}
        {line && <span className="line">{line}</span>}
      </summary>
      <Value label="Input" value={part.input} />
      {part.state === 'output-available' && <Value label="Output" value={part.output} />}
      {part.state === 'output-error' && <Value label="Error" value={part.errorText} />}
    </details>
  )
}

/** The end of what a running call said last: `{text}`, or whatever an agent wrote there. */
function progressText(progress: unknown): string {
  if (progress === undefined || progress === null) return ''
  const text = (progress as { text?: unknown }).text
  return (typeof text === 'string' ? text : shown(progress)).trimEnd().slice(-400)
}

export function DataCard({ name, data }: { name: string; data: unknown }) {
  return (
    <details className="data" open data-name={name}>
      <summary>
        <span className="name">{name}</span>
      </summary>
      <pre className="wide" tabIndex={0}>
        {shown(data).slice(0, FIRST_CHARACTERS)}
      </pre>
    </details>
  )
}

export function FileCard({ part }: { part: FilePart }) {
  const url = useSource(part.url)
  const [isBroken, setBroken] = useState(false)
  const name = part.filename ?? part.id ?? 'image'
  if (url && !isBroken && part.mediaType.startsWith('image/')) {
    return (
      <a className="file" href={url} target="_blank" rel="noopener noreferrer" title={name}>
        <img src={url} alt={name} onError={() => setBroken(true)} />
      </a>
    )
  }
  return (
    <span className="file plain">
      {name} ({part.mediaType}
      {part.size !== undefined && `, ${bytes(part.size)}`})
    </span>
  )
}

/** Where an <img> finds the bytes. It cannot send a token, so then they are fetched here. Only this server is asked. */
function useSource(url: string | undefined): string | undefined {
  const identity = useCell(token)
  const refused = useCell(isTokenNeeded)
  const [fetched, setFetched] = useState<string>()
  const isInline = url?.startsWith('data:image/') || url?.startsWith('blob:')
  const isOurs = url !== undefined && !isInline && new URL(url, location.href).origin === location.origin
  const mustFetch = isOurs && identity !== ''
  useEffect(() => {
    if (!mustFetch || refused) return
    let local: string | undefined
    const controller = new AbortController()
    request(url!, { signal: controller.signal })
      .then((response) => (response.ok ? response.blob() : Promise.reject(new Error(String(response.status)))))
      .then((blob) => setFetched((local = URL.createObjectURL(blob))))
      .catch(() => undefined)
    return () => {
      controller.abort()
      if (local) URL.revokeObjectURL(local)
    }
  }, [url, identity, mustFetch, refused])
  return mustFetch ? fetched : isInline || isOurs ? url : undefined
}
