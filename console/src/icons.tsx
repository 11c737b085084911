// The few drawings of the page, 16 by 16, in the colour of the text.

const shapes = {
  abort: <rect x="4" y="4" width="8" height="8" rx="1.5" fill="currentColor" stroke="none" />,
  ask: <path d="M2.5 9.5h3l1 2h3l1-2h3M2.5 9.5v3h11v-3m-11 0 2-6h7l2 6" />,
  attach: <path d="M12.5 7.5 8 12a3 3 0 0 1-4.2-4.2l5-5a2 2 0 0 1 2.8 2.8l-5 5a1 1 0 0 1-1.4-1.4L9.5 5" />,
  close: <path d="m4 4 8 8m0-8-8 8" />,
  down: <path d="M8 3v10m-4-4 4 4 4-4" />,
  failed: <path d="M8 4v5m0 2.5v.5" />,
  list: <path d="M3 4.5h10M3 8h10M3 11.5h10" />,
  done: <path d="m3.5 8.5 3 3 6-7" />,
  wait: <path d="M6 4v8M10 4v8" />,
  plus: <path d="M8 3v10M3 8h10" />,
  send: <path d="M8 13V3M4 7l4-4 4 4" />,
}

export function Icon({ name }: { name: keyof typeof shapes }) {
  return (
    <svg className="icon" viewBox="0 0 16 16" fill="none" stroke="currentColor" strokeWidth="1.6" strokeLinecap="round" strokeLinejoin="round" aria-hidden="true">
      {shapes[name]}
    </svg>
  )
}
