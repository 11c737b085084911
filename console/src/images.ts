// Pictures on their way from a button, the clipboard or a drop into a message.

import type { DeliveredAttachment } from '@flue/react'
import { bytes } from './text'

export const IMAGE_TYPES = ['image/png', 'image/jpeg', 'image/gif', 'image/webp']
/** What the server accepts of one attachment, decoded. */
const LARGEST_BYTES = 10 * 1024 * 1024
/** What the server accepts of one message, with a margin for its text. */
const TOGETHER_BYTES = 11 * 1024 * 1024

/** The files as attachments. Raises an error for people when one cannot be sent. */
export async function attached(files: File[], present: DeliveredAttachment[]): Promise<DeliveredAttachment[]> {
  for (const file of files) {
    if (!IMAGE_TYPES.includes(file.type)) throw new Error(`${file.name || 'This file'} is not a PNG, JPEG, GIF or WebP image.`)
    if (file.size > LARGEST_BYTES) throw new Error(`${file.name} has ${bytes(file.size)}; at most ${bytes(LARGEST_BYTES)} can be sent.`)
  }
  const size = present.reduce((sum, image) => sum + image.data.length * 0.75, 0) + files.reduce((sum, file) => sum + file.size, 0)
  if (size > TOGETHER_BYTES) throw new Error(`The images have ${bytes(size)} together; at most ${bytes(TOGETHER_BYTES)} can be sent at once.`)
  return Promise.all(
    files.map(async (file) => ({ type: 'image' as const, data: await base64(file), mimeType: file.type, filename: file.name })),
  )
}

function base64(file: File): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader()
    reader.onload = () => resolve(String(reader.result).replace(/^[^,]*,/, ''))
    reader.onerror = () => reject(new Error(`${file.name} cannot be read.`))
    reader.readAsDataURL(file)
  })
}

export const preview = (image: DeliveredAttachment) => `data:${image.mimeType};base64,${image.data}`
