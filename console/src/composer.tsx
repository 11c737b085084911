// The box: text and images until the server has accepted them. What is not accepted comes back into it.

import type { DeliveredAttachment } from '@flue/react'
import { useEffect, useLayoutEffect, useRef, useState, type ClipboardEvent, type DragEvent, type KeyboardEvent } from 'react'
import { Icon } from './icons'
import { attached, IMAGE_TYPES, preview } from './images'
import { reason } from './text'

/** A phone's keyboard would cover what one came to read. */
const hasKeyboard = matchMedia('(pointer: fine)').matches

interface Props {
  /** Names the draft, which outlives a reload. */
  draft: string
  isWorking: boolean
  send(text: string, images: { images: DeliveredAttachment[] }): Promise<void>
  abort(): Promise<unknown>
}

export function Composer({ draft, isWorking, send, abort }: Props) {
  const [text, setText] = useDraft(draft)
  const [images, setImages] = useState<DeliveredAttachment[]>([])
  const [trouble, setTrouble] = useState('')
  const box = useRef<HTMLTextAreaElement>(null)
  const canSend = text.trim() !== '' || images.length > 0
  useGrowth(box, text)

  async function submit() {
    if (!canSend) return
    setText('')
    setImages([])
    setTrouble('')
    try {
      await send(text, { images })
    } catch (error) {
      setText((typed) => (typed ? `${text}\n${typed}` : text))
      setImages((added) => [...images, ...added])
      setTrouble(`Not sent: ${reason(error)}`)
      box.current?.focus()
    }
  }

  async function add(files: File[]) {
    try {
      const added = await attached(files, images)
      setImages((present) => [...present, ...added])
      setTrouble('')
    } catch (error) {
      setTrouble(reason(error))
    }
    box.current?.focus()
  }

  async function stop() {
    try {
      await abort()
      setTrouble('')
    } catch (error) {
      setTrouble(`Not aborted: ${reason(error)}`)
    }
  }

  function onKeyDown(event: KeyboardEvent) {
    if (event.nativeEvent.isComposing) return
    if (event.key === 'Enter' && !event.shiftKey) {
      event.preventDefault()
      void submit()
    } else if (event.key === 'Escape' && isWorking) {
      event.preventDefault()
      void stop()
    }
  }

  function onPaste(event: ClipboardEvent) {
    const files = [...event.clipboardData.files]
    if (files.length === 0) return
    event.preventDefault()
    void add(files)
  }

  function onDrop(event: DragEvent) {
    event.preventDefault()
    void add([...event.dataTransfer.files])
  }

  return (
    <form
      className="composer"
      onSubmit={(event) => (event.preventDefault(), void submit())}
      onDragOver={(event) => event.preventDefault()}
      onDrop={onDrop}
    >
      {trouble && (
        <p className="trouble" role="alert">
          {trouble}
        </p>
      )}
      {images.length > 0 && <Images images={images} remove={(gone) => setImages(images.filter((image) => image !== gone))} />}
      <div className="row">
        <AttachButton add={add} />
        <textarea
          ref={box}
          rows={1}
          value={text}
          placeholder="Message"
          aria-label="Message"
          enterKeyHint="send"
          autoFocus={hasKeyboard}
          onChange={(event) => setText(event.target.value)}
          onKeyDown={onKeyDown}
          onPaste={onPaste}
        />
        {isWorking && (
          <button type="button" className="square" title="Abort (Esc)" aria-label="Abort" onClick={() => void stop()}>
            <Icon name="abort" />
          </button>
        )}
        <button type="submit" className="square accent" title="Send (Enter)" aria-label="Send" disabled={!canSend}>
          <Icon name="send" />
        </button>
      </div>
    </form>
  )
}

function AttachButton({ add }: { add(files: File[]): Promise<void> }) {
  const input = useRef<HTMLInputElement>(null)
  return (
    <>
      <input
        ref={input}
        type="file"
        hidden
        multiple
        accept={IMAGE_TYPES.join()}
        onChange={(event) => {
          void add([...(event.target.files ?? [])])
          event.target.value = ''
        }}
      />
      <button type="button" className="square quiet" title="Attach images" aria-label="Attach images" onClick={() => input.current?.click()}>
        <Icon name="attach" />
      </button>
    </>
  )
}

function Images({ images, remove }: { images: DeliveredAttachment[]; remove(image: DeliveredAttachment): void }) {
  return (
    <ul className="images">
      {images.map((image, index) => (
        <li key={index}>
          <img src={preview(image)} alt={image.filename ?? 'image'} />
          <button type="button" aria-label={`Remove ${image.filename ?? 'image'}`} onClick={() => remove(image)}>
            <Icon name="close" />
          </button>
        </li>
      ))}
    </ul>
  )
}

/** A text that is kept in the tab under a name. */
function useDraft(name: string) {
  const key = `cairn.draft:${name}`
  const state = useState(() => sessionStorage.getItem(key) ?? '')
  useEffect(() => {
    if (state[0]) sessionStorage.setItem(key, state[0])
    else sessionStorage.removeItem(key)
  }, [key, state[0]])
  return state
}

/** As tall as its text; the style sheet says how tall at most. */
function useGrowth(box: React.RefObject<HTMLTextAreaElement | null>, text: string) {
  useLayoutEffect(() => {
    const area = box.current
    if (!area) return
    area.style.height = 'auto'
    area.style.height = `${area.scrollHeight + 2}px`
  }, [box, text])
}
