// What a model wrote, as Markdown. It is not trusted: HTML in it is shown as text, nothing of it is loaded, and a link says
// where it leads. (An image that a model can make a browser load is a way out for what the model knows.)

import { memo, type ReactNode } from 'react'
import ReactMarkdown, { defaultUrlTransform, type Components } from 'react-markdown'
import remarkGfm from 'remark-gfm'

/** Longer texts are shown as they are: parsing them would hold up the page. */
const LONGEST_CHARACTERS = 100_000

const plugins = [remarkGfm]

const components: Components = {
  a: ({ href, children }) => <Link href={href}>{children}</Link>,
  img: ({ src, alt }) => (
    <span className="no-image">
      [image: {alt || 'no description'}
      {typeof src === 'string' && hostOf(src) && `, not loaded from ${hostOf(src)}`}]
    </span>
  ),
  input: ({ checked }) => <input type="checkbox" checked={checked ?? false} readOnly disabled />,
  table: ({ children }) => (
    <div className="wide" tabIndex={0} role="region" aria-label="Table">
      <table>{children}</table>
    </div>
  ),
  pre: ({ children }) => (
    <pre className="wide" tabIndex={0}>
      {children}
    </pre>
  ),
}

function Link({ href, children }: { href?: string; children: ReactNode }) {
  if (!href || !/^(https?:|mailto:)/i.test(href)) return <span className="no-link">{children}</span>
  const host = hostOf(href)
  const saysWhere = typeof children === 'string' && host !== '' && children.includes(host)
  return (
    <>
      <a href={href} title={href} target="_blank" rel="noopener noreferrer nofollow">
        {children}
      </a>
      {host && !saysWhere && <span className="host"> ({host})</span>}
    </>
  )
}

function hostOf(url: string): string {
  try {
    return new URL(url).host
  } catch {
    return ''
  }
}

const Block = memo(function Block({ text }: { text: string }) {
  return (
    <ReactMarkdown remarkPlugins={plugins} components={components} urlTransform={defaultUrlTransform}>
      {text}
    </ReactMarkdown>
  )
})

/** A definition that another paragraph may refer to: of a link, of a footnote. */
const DEFINITION = /^ {0,3}\[[^\]\n]+\]:/m

/** A text is parsed by paragraphs, so that each delta costs its paragraph and not the whole. Only what paragraphs say of each
 *  other needs the whole, and that can wait for its end. */
export const Markdown = memo(function Markdown({ text, isGrowing }: { text: string; isGrowing: boolean }) {
  if (text.length > LONGEST_CHARACTERS) return <div className="plain">{text}</div>
  const blocks = !isGrowing && DEFINITION.test(text) ? [text] : paragraphs(text)
  return (
    <div className="markdown">
      {blocks.map((block, index) => (
        <Block key={index} text={block} />
      ))}
    </div>
  )
})

/** The text, cut at blank lines that are outside of fences and followed by a line that begins a block of its own. */
export function paragraphs(text: string): string[] {
  const blocks: string[] = []
  let block: string[] = []
  let fence = ''
  const lines = text.split('\n')
  for (const [index, line] of lines.entries()) {
    const mark = /^ {0,3}(`{3,}|~{3,})/.exec(line)?.[1]
    if (!fence && mark) fence = mark
    else if (fence && mark?.startsWith(fence) && line.trim() === mark) fence = ''
    block.push(line)
    const next = lines[index + 1]
    if (!fence && line.trim() === '' && next !== undefined && /^[^\s\-*+\d>|[]/.test(next)) {
      blocks.push(block.join('\n'))
      block = []
    }
  }
  return [...blocks, block.join('\n')]
}
