// Where the page is: /chat/<agent>/<id> below the mount, in the address bar and nowhere else.

import { cell } from './cell'
import { mount } from './server'

export interface Place {
  agent?: string
  id?: string
}

function read(): Place {
  const [chat, agent, id] = location.pathname.slice(mount.length).split('/').filter(Boolean).map(decoded)
  return chat === 'chat' ? { agent, id } : {}
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

/** Goes there; `replace` leaves no step back, for a place nobody chose. */
export function go(agent: string, id: string, how: 'push' | 'replace' = 'push'): void {
  history[how === 'push' ? 'pushState' : 'replaceState'](null, '', pathOf(agent, id))
  place.set({ agent, id })
}
