// What waits for an answer everywhere that this person may read. It is looked up when somebody may have something to learn from
// it, and every few seconds only while its view is open and seen.

import { useEffect } from 'react'
import { cell, useCell } from './cell'
import { questions, token, type Inbox } from './server'
import { reason } from './text'

const LOOK_EVERY_MS = 3000

/** The first page of it; undefined: not known, or not to be known. */
export const inbox = cell<Inbox | undefined>(undefined)
/** Why it is not known. */
export const inboxTrouble = cell('')

let asked = 0

/** Looks once. A look that was overtaken by a later one says nothing. */
export async function look(): Promise<void> {
  const number = ++asked
  try {
    const found = await questions()
    if (number !== asked) return
    inbox.set(found)
    inboxTrouble.set('')
  } catch (error) {
    if (number === asked) inboxTrouble.set(reason(error))
  }
}

/** Keeps it fresh: whenever `version` changes and when the page is looked at again; with `isOpen` all the time. */
export function useInbox(isOpen: boolean, version: unknown): Inbox | undefined {
  const identity = useCell(token)
  useEffect(() => {
    const again = () => void look()
    again()
    addEventListener('focus', again)
    return () => removeEventListener('focus', again)
  }, [identity, version])
  useEffect(() => {
    if (!isOpen) return
    let timer: ReturnType<typeof setTimeout>
    const next = async () => {
      if (document.visibilityState === 'visible') await look()
      timer = setTimeout(() => void next(), LOOK_EVERY_MS)
    }
    timer = setTimeout(() => void next(), LOOK_EVERY_MS)
    return () => clearTimeout(timer)
  }, [isOpen])
  return useCell(inbox)
}
