// The page: the list at the left, one conversation at the right.

import type { FlueConversationMessage } from '@flue/react'
import { useCallback, useEffect, useState } from 'react'
import { Approvals } from './approvals'
import { useCell } from './cell'
import { Composer } from './composer'
import { Icon } from './icons'
import { newConversation } from './ids'
import { useInbox } from './inbox'
import { go, place } from './place'
import { AnswersUrl } from './question'
import { address, agents, isAway, isTokenNeeded, token, type Agent } from './server'
import { Sidebar } from './sidebar'
import { reason } from './text'
import { remember } from './titles'
import { TokenForm } from './token-form'
import { Transcript } from './transcript'
import { useConversation } from './use-conversation'

export function App() {
  const { agent, id, view } = useCell(place)
  const { known, trouble } = useAgents()
  const mustAsk = useCell(isTokenNeeded)
  const first = known?.[0]?.name

  useEffect(() => {
    const chosen = agent ?? first
    if (chosen && !id && !view) go(chosen, newConversation(), 'replace')
  }, [agent, id, view, first])

  return (
    <>
      {mustAsk && <TokenForm />}
      {view || known?.length === 0 ? (
        <Waiting agents={known ?? []} agent={agent ?? first ?? ''} id={id ?? ''} />
      ) : agent && id ? (
        <Chat key={`${agent}/${id}`} agents={known ?? []} agent={agent} id={id} />
      ) : (
        <p className="lobby">{trouble || 'Loading…'}</p>
      )}
    </>
  )
}

function Waiting({ agents, agent, id }: { agents: Agent[]; agent: string; id: string }) {
  const [isListOpen, setListOpen] = useState(false)
  const close = useCallback(() => setListOpen(false), [])
  const inbox = useInbox(true, undefined)
  return (
    <div className="page">
      <Sidebar agents={agents} agent={agent} id={id} isOpen={isListOpen} close={close} version={undefined} isAsking />
      <Approvals agents={agents} inbox={inbox} openList={() => setListOpen(true)} />
    </div>
  )
}

function useAgents() {
  const identity = useCell(token)
  const [known, setKnown] = useState<Agent[]>()
  const [trouble, setTrouble] = useState('')
  useEffect(() => {
    agents().then(
      (answer) => (setKnown(answer.agents), setTrouble('')),
      (error) => setTrouble(reason(error)),
    )
  }, [identity])
  return { known, trouble }
}

function Chat({ agents, agent, id }: { agents: Agent[]; agent: string; id: string }) {
  const [isListOpen, setListOpen] = useState(false)
  const close = useCallback(() => setListOpen(false), [])
  const { messages, settlements, isReady, isWorking, trouble, send, abort } = useConversation(agent, id)
  const about = agents.find(({ name }) => name === agent)
  const [sent, setSent] = useState(0)
  const hasBegun = messages.some((message) => message.submissionId !== undefined)

  useInbox(false, waitingIn(messages))
  useEffect(() => remember(agent, id, messages), [agent, id, messages[0]?.id, hasBegun])
  useEffect(() => {
    document.title = `${isWorking ? '… ' : ''}${agent} · Cairn`
  }, [agent, isWorking])

  return (
    <div className="page">
      <Sidebar agents={agents} agent={agent} id={id} isOpen={isListOpen} close={close} version={hasBegun} />
      <main>
        <header>
          <button type="button" className="square quiet only-narrow" onClick={() => setListOpen(true)} aria-label="Conversations">
            <Icon name="list" />
          </button>
          <div className="heading">
            <h1>{agent}</h1>
            {about?.model && <span className="model">{about.model}</span>}
          </div>
          <Connection trouble={trouble} />
        </header>
        <AnswersUrl.Provider value={address('agents', agent, id, 'answers')}>
          <Transcript
            messages={messages}
            settlements={settlements}
            isWorking={isWorking}
            sent={sent}
            empty={isReady ? <Empty agent={about ?? { name: agent }} isUnknown={agents.length > 0 && !about} /> : <p className="hint">{trouble ? reason(trouble) : 'Loading…'}</p>}
          />
        </AnswersUrl.Provider>
        <Composer draft={`${agent}/${id}`} isWorking={isWorking} send={(...what) => (setSent(sent + 1), send(...what))} abort={abort} />
      </main>
    </div>
  )
}

/** How many questions of the conversation are open: when that changes, so has what waits everywhere. */
function waitingIn(messages: FlueConversationMessage[]): number {
  const parts = messages.flatMap((message) => message.parts.filter((part) => part.type.startsWith('data-question:')))
  return parts.filter((part) => ((part as { data?: { state?: string } }).data?.state ?? '') === 'waiting').length
}

/** Says when the page does not follow the conversation. */
function Connection({ trouble }: { trouble?: Error }) {
  const away = useCell(isAway)
  return (
    <span className="connection" role="status">
      {(away || trouble) && (
        <span title={trouble && reason(trouble)}>
          <span className="spinner" /> Reconnecting…
        </span>
      )}
    </span>
  )
}

function Empty({ agent, isUnknown }: { agent: Agent; isUnknown: boolean }) {
  if (isUnknown) return <p className="hint">This server has no agent of the name “{agent.name}”. Choose another one in the list.</p>
  return (
    <div className="empty">
      <h2>{agent.name}</h2>
      {agent.description && <p>{agent.description}</p>}
      <p className="hint">
        Write a message below.
        <span className="keys">
          {' '}
          <kbd>Enter</kbd> sends it, <kbd>Shift</kbd> <kbd>Enter</kbd> begins a line, <kbd>Esc</kbd> aborts an answer. Images can be pasted or
          dropped.
        </span>
      </p>
    </div>
  )
}
