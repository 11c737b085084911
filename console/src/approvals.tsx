// What waits for an answer everywhere: of agents, workflows and other objects, with the buttons.

import { useEffect } from 'react'
import { useCell } from './cell'
import { Icon } from './icons'
import { inboxTrouble, look } from './inbox'
import { go, pathOf } from './place'
import { AnswersUrl, Question } from './question'
import { address, type Agent, type Inbox, type Waiting } from './server'
import { moment, shown } from './text'

/** Characters of a question that are shown; the rest can be scrolled to. */
const SHOWN_CHARACTERS = 100_000

export function Approvals({ agents, inbox, openList }: { agents: Agent[]; inbox?: Inbox; openList(): void }) {
  const trouble = useCell(inboxTrouble)
  const count = inbox?.questions.length ?? 0
  useEffect(() => {
    document.title = `${count ? `(${count}) ` : ''}Approvals · Cairn`
  }, [count])
  return (
    <main>
      <header>
        <button type="button" className="square quiet only-narrow" onClick={openList} aria-label="Conversations">
          <Icon name="list" />
        </button>
        <div className="heading">
          <h1>Approvals</h1>
        </div>
      </header>
      <section className="inbox" aria-label="What waits for an answer">
        {trouble && (
          <p className="trouble" role="alert">
            {trouble}
          </p>
        )}
        {inbox && count === 0 && !inbox.next && <p className="hint">Nothing waits for an answer.</p>}
        {!inbox && !trouble && <p className="hint">Loading…</p>}
        {inbox?.questions.map((one) => (
          <Entry key={keyOf(one)} one={one} isAgent={agents.some(({ name }) => name === one.instance.kind)} />
        ))}
        {inbox?.next && <p className="hint">More wait than are shown here; they follow as these are answered.</p>}
      </section>
    </main>
  )
}

const keyOf = ({ instance, call, fiber, digest }: Waiting) => JSON.stringify([instance.kind, instance.id, fiber, call, digest])

function Entry({ one, isAgent }: { one: Waiting; isAgent: boolean }) {
  const { kind, id } = one.instance
  const where = `${kind}/${id}`
  return (
    <article className="asks" data-instance={where}>
      <h2>
        <span className="name">{one.tool}</span>
        {isAgent ? <Conversation agent={kind} id={id} /> : <span className="where">{where}</span>}
        <time className="when" dateTime={one.askedAt}>
          {moment(one.askedAt)}
        </time>
      </h2>
      <pre className="wide" tabIndex={0}>
        {shown(one.input).slice(0, SHOWN_CHARACTERS)}
      </pre>
      <AnswersUrl.Provider value={address('agents', kind, id, 'answers')}>
        <Question asked={{ ...one, state: 'waiting', toolCallId: one.call }} tool={`${one.tool} of ${where}`} isWorking answered={() => void look()} />
      </AnswersUrl.Provider>
    </article>
  )
}

function Conversation({ agent, id }: { agent: string; id: string }) {
  return (
    <a
      className="where"
      href={pathOf(agent, id)}
      onClick={(event) => {
        if (event.metaKey || event.ctrlKey || event.shiftKey) return
        event.preventDefault()
        go(agent, id)
      }}
    >
      {agent}/{id}
    </a>
  )
}
