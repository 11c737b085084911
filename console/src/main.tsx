import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import { App } from './app'
import './style/base.css'
import './style/buttons.css'
import './style/page.css'
import './style/list.css'
import './style/transcript.css'
import './style/question.css'
import './style/inbox.css'
import './style/markdown.css'
import './style/composer.css'
import './style/token.css'

createRoot(document.getElementById('root')!).render(
  <StrictMode>
    <App />
  </StrictMode>,
)
