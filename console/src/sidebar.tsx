// The list of an agent's conversations, newest first. On a narrow screen it is a drawer.

import { useCallback, useEffect, useRef, useState } from 'react'
import { useCell } from './cell'
import { Icon } from './icons'
import { newConversation } from './ids'
import { inbox } from './inbox'
import { approvalsPath, go, goToApprovals, pathOf } from './place'
import { conversations, type Agent, type Listed } from './server'
import { moment, reason } from './text'
import { titleKey, titles } from './titles'

interface Props {
  agents: Agent[]
  agent: string
  id: string
  isOpen: boolean
  close(): void
  /** Changes when the list may have. */
  version: unknown
  /** What waits everywhere is shown instead of the conversation. */
  isAsking?: boolean
}

export function Sidebar({ agents, agent, id, isOpen, close, version, isAsking = false }: Props) {
  const { list, next, trouble, more } = useConversations(agent, version)
  const open = (to: string) => (go(agent, to), close())
  const isListed = list.some((one) => one.id === id)
  useEscape(isOpen, close)
  return (
    <>
      {isOpen && <div className="shade" onClick={close} />}
      <nav className="sidebar" data-open={isOpen || undefined} aria-label="Conversations">
        <div className="row">
          {agent ? <Agents agents={agents} agent={agent} /> : <span className="agent">No agents</span>}
          <button type="button" className="square quiet only-narrow" onClick={close} aria-label="Close the list">
            <Icon name="close" />
          </button>
        </div>
        {agent && (
          <button type="button" className="new" onClick={() => open(newConversation())}>
            <Icon name="plus" /> New conversation
          </button>
        )}
        <Waiting agent={agent} id={id} isCurrent={isAsking} close={close} />
        {trouble && <p className="trouble">{trouble}</p>}
        <ul>
          {!isListed && id && <Entry agent={agent} one={{ id, createdAt: '' }} isCurrent={!isAsking} open={open} />}
          {list.map((one) => (
            <Entry key={one.id} agent={agent} one={one} isCurrent={one.id === id && !isAsking} open={open} />
          ))}
        </ul>
        {next && (
          <button type="button" className="quiet" onClick={() => void more()}>
            Show more
          </button>
        )}
      </nav>
    </>
  )
}

/** The way to what waits everywhere, and how much that is. */
function Waiting({ agent, id, isCurrent, close }: { agent: string; id: string; isCurrent: boolean; close(): void }) {
  const known = useCell(inbox)
  const count = known?.questions.length ?? 0
  return (
    <a
      className="approvals"
      href={approvalsPath({ agent, id })}
      aria-current={isCurrent ? 'page' : undefined}
      onClick={(event) => {
        if (event.metaKey || event.ctrlKey || event.shiftKey) return
        event.preventDefault()
        goToApprovals()
        close()
      }}
    >
      <Icon name="ask" /> <span className="title">Approvals</span>
      {count > 0 && (
        <span className="count" data-count={count}>
          {count}
          {known?.next && '+'}
        </span>
      )}
    </a>
  )
}

function Agents({ agents, agent }: { agents: Agent[]; agent: string }) {
  const isKnown = agents.some(({ name }) => name === agent)
  if (agents.every(({ name }) => name === agent)) return <span className="agent">{agent}</span>
  return (
    <select className="agent" aria-label="Agent" value={agent} onChange={(event) => go(event.target.value, newConversation())}>
      {!isKnown && <option disabled>{agent}</option>}
      {agents.map(({ name, description }) => (
        <option key={name} title={description ?? undefined}>
          {name}
        </option>
      ))}
    </select>
  )
}

function Entry({ agent, one, isCurrent, open }: { agent: string; one: Listed; isCurrent: boolean; open(id: string): void }) {
  const seen = useCell(titles)[titleKey(agent, one.id)]
  return (
    <li>
      <a
        href={pathOf(agent, one.id)}
        aria-current={isCurrent ? 'page' : undefined}
        onClick={(event) => {
          if (event.metaKey || event.ctrlKey || event.shiftKey) return
          event.preventDefault()
          open(one.id)
        }}
      >
        <span className="title" title={one.id}>
          {one.title || seen || one.id}
        </span>
        <span className="when">{one.createdAt ? moment(one.createdAt) : 'new'}</span>
      </a>
    </li>
  )
}

function useConversations(agent: string, version: unknown) {
  const [list, setList] = useState<Listed[]>([])
  const [next, setNext] = useState<string | null>(null)
  const [trouble, setTrouble] = useState('')
  const asked = useRef(0)

  const load = useCallback(
    async (cursor: string | null) => {
      if (!agent) return
      const number = ++asked.current
      try {
        const page = await conversations(agent, cursor)
        if (number !== asked.current) return
        setList((before) => (cursor ? [...before, ...page.conversations] : page.conversations))
        setNext(page.next)
        setTrouble('')
      } catch (error) {
        if (number === asked.current) setTrouble(reason(error))
      }
    },
    [agent],
  )

  useEffect(() => setList([]), [agent])
  useEffect(() => {
    const again = () => void load(null)
    again()
    addEventListener('focus', again)
    return () => removeEventListener('focus', again)
  }, [load, version])

  return { list, next, trouble, more: () => load(next) }
}

function useEscape(isOpen: boolean, close: () => void): void {
  useEffect(() => {
    if (!isOpen) return
    const listener = (event: KeyboardEvent) => event.key === 'Escape' && close()
    addEventListener('keydown', listener)
    return () => removeEventListener('keydown', listener)
  }, [isOpen, close])
}
