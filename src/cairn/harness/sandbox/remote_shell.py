"""What runs on the other side of an SSH connection: a POSIX shell script around each command, and what it says. Pure.

Laws. The script needs a shell, `/proc`, and GNU's or compatible `grep`, `env` and `readlink`. Its standard error is the way
back for `started PID GROUP TICKS` and `exited CODE LEFT`, its standard input the way in: `go` begins the command, anything
further, and the end of the connection, ends its tree. So a command does not outlive the worker that asked for it. Everything
of the tree carries the mark in its environment; the script itself does not.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

#: The longest argument Linux passes: the login shell gets the whole script as one.
SCRIPT_BYTES_MAX = 128 * 1024 - 1

_END = """
found() { grep -lszxF "CAIRN_COMMAND=$mark" /proc/[0-9]*/environ | cut -d/ -f3; }
end() {
  now=$(found); [ -n "$now" ] || return 1
  kill -TERM $now; kill -CONT $now; n=0
  while [ $n -lt 10 ] && [ -n "$(found)" ]; do sleep 0.05; n=$((n+1)); done
  n=0
  while [ $n -lt 200 ]; do
    now=$(found); [ -n "$now" ] || break
    kill -STOP $now; kill -KILL $now $(found); n=$((n+1))
  done
}
"""

_RUN = """exec 8<&0 9>&2 2>/dev/null </dev/null
read -r stat < /proc/$$/stat; rest=${stat##*) }; set -- $rest
group=$3; shift 19; mark=$$.$1
echo "started $$ $group $1" >&9
IFS= read -r go <&8 && [ "$go" = go ] || exit 0
(exec >/dev/null 9>&-; IFS= read -r order <&8; end) & watch=$!
if cd -- DIRECTORY; then
  shell=$(command -v bash || echo sh)
  env CAIRN_COMMAND=$mark VARIABLES "$shell" -c COMMAND </dev/null 2>&1 8<&- 9>&-
  code=$?
else
  kill $watch; echo "failed" >&9; exit 1
fi
left=$(found | wc -l)
[ "$left" -eq 0 ] || { sleep 0.2; left=$(found | wc -l); }
[ "$left" -eq 0 ] || end
kill $watch
echo "exited $code $left" >&9
exit 0
"""

#: The same for a way back that is one stream of text and a way in that is a second command: `go` is a file, the report is the
#: last of the output, after the separator. The output is in a file besides, as it was written, when it was not UTF-8.
_RUN_TEXT = """exec 9>&1 2>/dev/null </dev/null
read -r stat < /proc/$$/stat; rest=${stat##*) }; set -- $rest
group=$3; shift 19; mark=$$.$1; own=CONTROL/$mark
mkdir -p -m 700 CONTROL
echo "started $$ $group $1" >&9
WAIT
{
  if cd -- DIRECTORY; then
    shell=$(command -v bash || echo sh)
    env CAIRN_COMMAND=$mark VARIABLES "$shell" -c COMMAND </dev/null 2>&1 9>&-
    code=$?
    left=$(found | wc -l)
    [ "$left" -eq 0 ] || { sleep 0.2; left=$(found | wc -l); }
    [ "$left" -eq 0 ] || end
    echo "exited $code $left" > $own.report
  else
    echo "failed" > $own.report
  fi
} 9>&- | tee $own.out >&9
kept=
if iconv -f utf-8 -t utf-8 $own.out >/dev/null; then rm -f $own.out; else kept=$own.out; fi
printf '\\036%s %s\\n' "$(cat $own.report)" "$kept" >&9
rm -f $own.report $own.go $own.stop
exit 0
"""

#: What a waiting command waits for; given up after half a minute, when whoever should say it is gone.
_WAIT = """n=0; until [ -e $own.go ]; do
  sleep 0.05; n=$((n+1)); [ $n -lt 600 ] && [ ! -e $own.stop ] || { rm -f $own.stop; exit 0; }
done"""

#: Begins the report in a stream of text.
SEPARATOR = "\x1e"

#: Where commands that came through a stream of text keep what they say besides.
CONTROL = "/tmp/.cairn"

#: Says the instance's directory, the machine's boot and its name, a line each.
_PREPARE = """mkdir -p -m 700 -- DIRECTORY && cd -- DIRECTORY && pwd -P || exit 1
cat /proc/sys/kernel/random/boot_id || { echo "it is no Linux" >&2; exit 1; }
cat /proc/sys/kernel/hostname
echo x | tr x '\\0' | grep -qz . || { echo "its grep knows no -z" >&2; exit 1; }
"""

_REAP = """exec 2>/dev/null
mark=MARK
end && echo ended
"""


def running(command: str, directory: str, env: Mapping[str, str]) -> str:
    """The script that runs a command, to be given to the login shell."""
    return f"exec sh -c {shlex.quote(_END + _filled(_RUN, command, directory, env))}"


def running_text(command: str, directory: str, env: Mapping[str, str], *, waits: bool) -> str:
    """The script for a stream of text; it begins at once unless it `waits` for `going`."""
    script = _RUN_TEXT.replace("CONTROL", CONTROL).replace("WAIT", _WAIT if waits else ":", 1)
    return f"exec sh -c {shlex.quote(_END + _filled(script, command, directory, env))}"


def going(mark: str) -> str:
    """The script that lets a waiting command begin."""
    return f": > {CONTROL}/{mark}.go"


def stopping(mark: str) -> str:
    """The script that ends a tree, or the wait for `going`."""
    return f": > {CONTROL}/{mark}.stop; {ending(mark)}"


def _filled(script: str, command: str, directory: str, env: Mapping[str, str]) -> str:
    """Piece by piece, for what is put in may hold the words that are looked for."""
    before, rest = script.split("DIRECTORY", 1)
    middle, rest = rest.split("VARIABLES", 1)
    last, after = rest.split("COMMAND", 1)
    variables = " ".join(shlex.quote(f"{name}={value}") for name, value in env.items())
    return f"{before}{shlex.quote(directory)}{middle}{variables}{last}{shlex.quote(command)}{after}"


def preparing(directory: str) -> str:
    """The script that makes the directory and says where it is."""
    return f"exec sh -c {shlex.quote(_PREPARE.replace('DIRECTORY', shlex.quote(directory)))}"


def ending(mark: str) -> str:
    """The script that ends a tree, and says `ended` if there was one."""
    return f"exec sh -c {shlex.quote(_END + _REAP.replace('MARK', shlex.quote(mark)))}"


def started(line: bytes) -> tuple[int, int, float] | None:
    """pid, group and start of the script that waits to begin; None if the line says something else."""
    words = line.split()
    if len(words) != 4 or words[0] != b"started" or not all(word.isdigit() for word in words[1:]):
        return None
    return int(words[1]), int(words[2]), float(words[3])


def exited(line: bytes) -> tuple[int, int] | None:
    """The command's exit code, and how many processes it had left behind."""
    words = line.split()
    if len(words) != 3 or words[0] != b"exited":
        return None
    return int(words[1]), int(words[2])
