// Where the page is: /chat/<agent>/<id> below the mount, or ?view=approvals of it, in the address bar and nowhere else.

import { cell } from './cell'
import { mount } from './server'

export interface Place {
  agent?: string
  id?: string
  /** What is shown instead of the conversation. */
  view?: 'approvals'
}

function read(): Place {
  const [chat, agent, id] = location.pathname.slice(mount.length).split('/').filter(Boolean).map(decoded)
  const view = new URLSearchParams(location.search).get('view') === 'approvals' ? 'approvals' : undefined
  return chat === 'chat' ? { agent, id, view } : { view }
}

function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment)
  } catch {
    return segment
  }
}

export const place = cell<Place>(read())
addEventListener('popstate', () => place.set(read()))

export function pathOf(agent: string, id: string): string {
  return `${mount}/chat/${encodeURIComponent(agent)}/${encodeURIComponent(id)}`
}

/** The address of what waits everywhere; the conversation stays behind it. */
export function approvalsPath({ agent, id }: Place): string {
  return `${agent && id ? pathOf(agent, id) : `${mount}/chat`}?view=approvals`
}

export function goToApprovals(): void {
  const { agent, id } = place.get()
  history.pushState(null, '', approvalsPath({ agent, id }))
  place.set({ agent, id, view: 'approvals' })
}

/** Goes there; `replace` leaves no step back, for a place nobody chose. */
export function go(agent: string, id: string, how: 'push' | 'replace' = 'push'): void {
  history[how === 'push' ? 'pushState' : 'replaceState'](null, '', pathOf(agent, id))
  place.set({ agent, id })
}
