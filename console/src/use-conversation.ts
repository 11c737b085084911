// One conversation as the page shows it: what the Flue hook knows, what is still being worked on, and sending that is safe
// to repeat.

import { useFlueAgent, type FlueConversationMessage, type FlueConversationSettlement } from '@flue/react'
import { createFlueClient, type AgentPromptOptions, type FlueClient } from '@flue/sdk'
import { useEffect, useMemo } from 'react'
import { useCell } from './cell'
import { randomName } from './ids'
import { address, request, token } from './server'

/** Tells the other tabs that a conversation has begun, so that one that waits for it looks again. */
const births = new BroadcastChannel('cairn.births')

export function useConversation(agent: string, id: string) {
  const identity = useCell(token)
  const client = useMemo(
    () => keyed(createFlueClient({ url: address('agents', agent, id), fetch: request })),
    // A new token is a new client: what was refused is asked again.
    [agent, id, identity],
  )
  const { messages, settlements, failedSends, status, historyReady, error, sendMessage, refresh } = useFlueAgent({ client })
  const isAbsent = historyReady && settlements.length === 0 && messages.every((message) => message.submissionId === undefined)
  useRefreshWhileAbsent(client.url, isAbsent, refresh)

  const unsent = new Set(failedSends.map((send) => send.id))
  const open = openSubmissions(messages, settlements)
  return {
    messages: messages.filter((message) => !unsent.has(message.id)),
    settlements,
    isReady: historyReady,
    isWorking: status === 'submitted' || open.size > 0,
    /** Why the conversation cannot be followed; a message that failed is not that, it has a notice of its own. */
    trouble: !historyReady || status === 'connecting' ? error : undefined,
    async send(text: string, images: Parameters<typeof sendMessage>[1]) {
      await sendMessage(text, images)
      births.postMessage(client.url)
    },
    abort: () => client.abort(),
  }
}

/** Submissions that were accepted and have no outcome yet. */
export function openSubmissions(messages: FlueConversationMessage[], settlements: FlueConversationSettlement[]): Set<string> {
  const settled = new Set(settlements.map((settlement) => settlement.submissionId))
  const seen = messages.filter((message) => message.role !== 'system').map((message) => message.submissionId)
  return new Set(seen.filter((id): id is string => id !== undefined && !settled.has(id)))
}

function useRefreshWhileAbsent(url: string, isAbsent: boolean, refresh: () => void): void {
  useEffect(() => {
    if (!isAbsent) return
    const listener = (event: MessageEvent) => event.data === url && refresh()
    births.addEventListener('message', listener)
    addEventListener('focus', refresh)
    return () => {
      births.removeEventListener('message', listener)
      removeEventListener('focus', refresh)
    }
  }, [url, isAbsent, refresh])
}

/** A client whose sends carry a key. A send whose answer was lost may have been received: sent again unchanged it has the same
 *  key, and is accepted once. */
function keyed(client: FlueClient): FlueClient {
  let lost: { message: string; key: string } | undefined
  return {
    ...client,
    async send(options: AgentPromptOptions) {
      const message = JSON.stringify(options.message)
      const key = lost?.message === message ? lost.key : randomName(26)
      try {
        const receipt = await client.send({ ...options, idempotencyKey: key })
        lost = undefined
        return receipt
      } catch (error) {
        lost = wasRefused(error) ? undefined : { message, key }
        throw error
      }
    },
  }
}

function wasRefused(error: unknown): boolean {
  const status = (error as { status?: unknown } | null)?.status
  return typeof status === 'number' && status >= 400 && status < 500
}
