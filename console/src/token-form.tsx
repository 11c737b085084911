// Asks for a bearer token when the server wants one.

import { useState } from 'react'
import { token, acceptToken } from './server'

export function TokenForm() {
  const [value, setValue] = useState('')
  return (
    <div className="cover">
      <form className="token" onSubmit={(event) => (event.preventDefault(), acceptToken(value.trim()))}>
        <h1>This server asks for a token</h1>
        <p>
          {token.get() ? 'The token you gave was not accepted. ' : ''}Ask whoever runs the server for one. It is kept in this tab until you
          close it.
        </p>
        <input type="password" autoFocus autoComplete="off" aria-label="Token" value={value} onChange={(event) => setValue(event.target.value)} />
        <button type="submit" className="accent" disabled={!value.trim()}>
          Continue
        </button>
      </form>
    </div>
  )
}
