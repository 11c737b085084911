// LICENSES.txt: the notices of the packages whose code is in the bundle. Their licences ask that copies carry them.

import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Plugin } from 'vite'

function packageOf(file: string): string | undefined {
  for (let folder = dirname(file); folder.includes('node_modules'); folder = dirname(folder)) {
    const manifest = join(folder, 'package.json')
    if (existsSync(manifest) && JSON.parse(readFileSync(manifest, 'utf8')).version) return folder
  }
  return undefined
}

function notice(folder: string): string {
  const { name, version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
  const file = readdirSync(folder).find((entry) => /^licen[sc]e/i.test(entry))
  const text = file ? readFileSync(join(folder, file), 'utf8').trim() : '(no licence file in the package)'
  return `${name} ${version} (${license})\n\n${text}\n`
}

/** Emits LICENSES.txt with the bundle. */
export function licenses(): Plugin {
  return {
    name: 'licenses',
    apply: 'build',
    generateBundle(_options, bundle) {
      const modules = Object.values(bundle).flatMap((file) => (file.type === 'chunk' ? Object.keys(file.modules) : []))
      const files = modules.filter((id) => id.includes('node_modules')).map((id) => id.replace(/^\0/, '').replace(/\?.*$/, ''))
      const folders = [...new Set(files.map(packageOf).filter((folder) => folder !== undefined))].sort()
      const source = folders.map(notice).join(`\n${'-'.repeat(80)}\n\n`)
      this.emitFile({ type: 'asset', fileName: 'LICENSES.txt', source })
    },
  }
}
