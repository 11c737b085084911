// The server this page came from: where it is mounted, who we are to it, and whether it answers.
//
// Every request of the page, the Flue client's included, goes through `request`. A read that finds nobody there waits and is
// asked again, so a restart of the server is a pause: streams go on from their last offset, and nothing is loaded twice.
// A write is never repeated here: whether it was received is not known, and its text goes back into the box.

import { cell } from './cell'

const FIRST_PAUSE_MS = 200
const LONGEST_PAUSE_MS = 1000
/** What a proxy, or a server that is starting, answers instead of a server that is there. */
const AWAY = [502, 503, 504]

export const mount = document.querySelector<HTMLMetaElement>('meta[name="cairn-mount"]')!.content

const TOKEN = `cairn.token:${mount}`

/** The bearer token, kept until the tab is closed. */
export const token = cell(sessionStorage.getItem(TOKEN) ?? '')
/** Whether the server refused us for want of a token. */
export const isTokenNeeded = cell(false)
/** Whether somebody is waiting for a server that does not answer. */
export const isAway = cell(false)

export function acceptToken(value: string): void {
  sessionStorage.setItem(TOKEN, value)
  isTokenNeeded.set(false)
  token.set(value)
}

/** The address of a path below the mount, segments encoded. */
export function address(...segments: string[]): string {
  return `${location.origin}${mount}/${segments.map(encodeURIComponent).join('/')}`
}

export async function request(input: RequestInfo | URL, init: RequestInit = {}): Promise<Response> {
  const isRead = (init.method ?? 'GET') === 'GET'
  for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(pause * 2, LONGEST_PAUSE_MS)) {
    const response = await attempt(input, init)
    const isThere = response !== undefined && !AWAY.includes(response.status)
    if (isThere || isRead) isAway.set(!isThere)
    if (response?.status === 401) isTokenNeeded.set(true)
    if (response && isThere) return isStream(response) ? unbroken(response, init.signal) : response
    if (!isRead) {
      if (response) return response
      throw new Error('The server does not answer.')
    }
    await sleep(pause * (0.5 + Math.random() / 2), init.signal)
  }
}

/** The answer, or undefined when there was none. */
async function attempt(input: RequestInfo | URL, init: RequestInit): Promise<Response | undefined> {
  const headers = new Headers(init.headers)
  if (token.get()) headers.set('authorization', `Bearer ${token.get()}`)
  try {
    return await fetch(input, { ...init, headers, credentials: 'same-origin' })
  } catch (error) {
    if (init.signal?.aborted) throw error
    return undefined
  }
}

const isStream = (response: Response) => response.headers.get('content-type')?.startsWith('text/event-stream') ?? false

/** The stream, ending where it was cut: the client asks for the rest, where an error would make it load everything again. */
function unbroken(response: Response, signal?: AbortSignal | null): Response {
  const reader = response.body!.getReader()
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { done, value } = await reader.read()
        if (done) controller.close()
        else controller.enqueue(value)
      } catch (error) {
        if (signal?.aborted) controller.error(error)
        else controller.close()
      }
    },
    cancel: (reason) => reader.cancel(reason),
  })
  return new Response(body, { status: response.status, headers: response.headers })
}

/** Ends early when the browser is back on the network, and throws when nobody waits any more. */
function sleep(ms: number, signal?: AbortSignal | null): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = (settle: () => void) => () => {
      clearTimeout(timer)
      removeEventListener('online', wake)
      signal?.removeEventListener('abort', stop)
      settle()
    }
    const wake = end(resolve)
    const stop = end(() => reject(signal!.reason))
    const timer = setTimeout(wake, ms)
    addEventListener('online', wake)
    signal?.addEventListener('abort', stop)
    if (signal?.aborted) stop()
  })
}

export interface Agent {
  name: string
  description?: string | null
  model?: string | null
}

export interface Listed {
  id: string
  createdAt: string
  title?: string | null
}

export interface Page {
  conversations: Listed[]
  next: string | null
}

/** A write, once: an error with the server's words when it was refused. */
export async function send(url: string, body: unknown): Promise<void> {
  const response = await request(url, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })
  if (response.ok) return
  const answer = await response.json().catch(() => undefined)
  throw Object.assign(new Error(`The server answered ${response.status}.`), { body: answer })
}

async function read<T>(url: string): Promise<T> {
  const response = await request(url)
  const body = await response.json().catch(() => undefined)
  if (!response.ok) throw new Error(body?.error?.message ?? `The server answered ${response.status}.`)
  return body as T
}

/** A question of somebody's, as the server tells it. */
export interface Waiting {
  call: string
  tool: string
  kind: 'approval' | 'client_tool' | 'question'
  input: unknown
  digest: string
  /** Of an object. */
  fiber?: string
  askedAt: string
  expiresAt?: string | null
  reason?: string
  by?: string[]
  instance: { kind: string; id: string }
}

export interface Inbox {
  questions: Waiting[]
  next: string | null
}

export const questions = () => read<Inbox>(address('questions'))

export const agents = () => read<{ agents: Agent[] }>(address('agents'))

export function conversations(agent: string, cursor: string | null): Promise<Page> {
  const query = new URLSearchParams({ limit: '50', ...(cursor ? { cursor } : {}) })
  return read<Page>(`${address('agents', agent)}?${query}`)
}
