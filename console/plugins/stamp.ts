// build.json: which sources the built files were made of, and what they are. A test of the Python package compares both, so a
// build that was forgotten and a built file that was edited by hand are found without Node.
//
// The digest of the sources is SHA-256 over `<path>\0<sha256 of the file>\n`, paths sorted, of everything in this folder that
// decides the build.

import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, relative, sep } from 'node:path'
import type { Plugin } from 'vite'

const SOURCES = ['plugins', 'src', 'index.html', 'package.json', 'package-lock.json', 'tsconfig.json', 'vite.config.ts']
const STAMP = 'build.json'

const sha256 = (bytes: Buffer | string) => createHash('sha256').update(bytes).digest('hex')

function filesBelow(path: string): string[] {
  try {
    return readdirSync(path).flatMap((name) => filesBelow(join(path, name)))
  } catch {
    return [path] // not a folder
  }
}

function named(root: string, paths: string[]): [name: string, digest: string][] {
  const rows = paths.map((path): [string, string] => [relative(root, path).split(sep).join('/'), sha256(readFileSync(path))])
  return rows.sort(([a], [b]) => (a < b ? -1 : 1))
}

function digestOfSources(root: string): string {
  const paths = SOURCES.flatMap((name) => filesBelow(join(root, name)))
  return sha256(named(root, paths).map(([name, digest]) => `${name}\0${digest}\n`).join(''))
}

/** Writes build.json beside the built files. */
export function stamp(root: string, outDir: string): Plugin {
  return {
    name: 'stamp',
    apply: 'build',
    closeBundle() {
      const built = filesBelow(outDir).filter((path) => !path.endsWith(STAMP))
      const content = { sources: digestOfSources(root), files: Object.fromEntries(named(outDir, built)) }
      writeFileSync(join(outDir, STAMP), `${JSON.stringify(content, null, 1)}\n`)
    },
  }
}
