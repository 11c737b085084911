// Builds the page into the Python package. The server decides where the page is mounted, so addresses in the built files begin
// with a word that it replaces (framework/http/page.py).

import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vite'
import { licenses } from './plugins/licenses.ts'
import { stamp } from './plugins/stamp.ts'

const root = fileURLToPath(new URL('.', import.meta.url))
const outDir = fileURLToPath(new URL('../src/cairn/framework/console', import.meta.url))

export default defineConfig(({ command }) => ({
  root,
  base: command === 'build' ? '/__CAIRN_MOUNT__/' : '/',
  build: { outDir, emptyOutDir: true, target: 'es2022', modulePreload: false, assetsInlineLimit: 0, chunkSizeWarningLimit: 700 },
  plugins: [
    {
      name: 'mount',
      transformIndexHtml: (html) => (command === 'build' ? html.replace('name="cairn-mount" content=""', 'name="cairn-mount" content="/__CAIRN_MOUNT__"') : html),
    },
    licenses(),
    stamp(root, outDir),
  ],
  server: { proxy: { '/agents': 'http://127.0.0.1:8000', '/health': 'http://127.0.0.1:8000' } },
}))
