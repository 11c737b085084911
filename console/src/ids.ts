// Names made in the browser. `crypto.randomUUID` exists only on https and localhost, so the bytes are spelled here.

const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz'

/** `length` characters of five random bits each. */
export function randomName(length: number): string {
  const bytes = crypto.getRandomValues(new Uint8Array(length))
  return Array.from(bytes, (byte) => ALPHABET[byte & 31]).join('')
}

/** A new conversation's id: 80 bits, so that two people never meet in one by chance and none is guessed. */
export const newConversation = () => randomName(16)
