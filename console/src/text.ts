// Values as text for people.

/** A JSON value, indented; a text as it is. */
export function shown(value: unknown): string {
  return typeof value === 'string' ? value : (JSON.stringify(value, null, 2) ?? 'undefined')
}

/** A value in one line, for a heading. */
export function brief(value: unknown): string {
  if (value !== null && typeof value === 'object' && !Array.isArray(value)) {
    return Object.entries(value)
      .map(([name, field]) => `${name}: ${typeof field === 'string' ? field : JSON.stringify(field)}`)
      .join(', ')
      .slice(0, 200)
  }
  return (typeof value === 'string' ? value : (JSON.stringify(value) ?? '')).slice(0, 200)
}

export function duration(ms: number): string {
  if (ms < 1) return '<1 ms'
  if (ms < 1000) return `${Math.round(ms)} ms`
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`
  return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`
}

export function bytes(count: number): string {
  return count < 1024 ? `${count} B` : count < 1024 ** 2 ? `${Math.round(count / 1024)} KB` : `${(count / 1024 ** 2).toFixed(1)} MB`
}

/** The time of day, and the date when it was not today. */
export function moment(iso: string): string {
  const then = new Date(iso)
  if (Number.isNaN(then.getTime())) return ''
  const isToday = then.toDateString() === new Date().toDateString()
  return isToday
    ? then.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' })
    : then.toLocaleDateString([], { day: 'numeric', month: 'short' })
}

/** What went wrong, in the server's words where it has some. */
export function reason(error: unknown): string {
  const fields = error as { message?: unknown; body?: { error?: { message?: string; details?: string } } } | null
  const answer = fields?.body?.error
  if (answer?.message) return [answer.message, answer.details].filter(Boolean).join(' ')
  return typeof fields?.message === 'string' ? fields.message : String(error)
}
