// What a conversation is called in the list: its first words, once this tab has seen them. They are kept as long as the tab,
// like the token: what was said does not stay behind in a browser.

import type { FlueConversationMessage } from '@flue/react'
import { cell } from './cell'
import { textOf } from './message'
import { mount } from './server'

const KEY = `cairn.titles:${mount}`
const MOST_TITLES = 200
const LONGEST_CHARACTERS = 80

type Titles = Record<string, string>

export const titles = cell<Titles>(JSON.parse(sessionStorage.getItem(KEY) ?? '{}') as Titles)

export const titleKey = (agent: string, id: string) => `${agent}/${id}`

/** Remembers the first thing a person said in a conversation. */
export function remember(agent: string, id: string, messages: FlueConversationMessage[]): void {
  const first = messages.find((message) => message.role === 'user' && message.submissionId !== undefined)
  const title = first && textOf(first).trim().split('\n')[0]?.slice(0, LONGEST_CHARACTERS)
  const key = titleKey(agent, id)
  if (!title || titles.get()[key] === title) return
  const kept = Object.entries(titles.get()).slice(-MOST_TITLES)
  titles.set({ ...Object.fromEntries(kept), [key]: title })
  sessionStorage.setItem(KEY, JSON.stringify(titles.get()))
}
