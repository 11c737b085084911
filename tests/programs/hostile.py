# ruff: noqa: E501 - a catalogue, one column an idea
"""Programs that want out, want more, or want to hurt: what they are, by what they try."""

from __future__ import annotations

from collections.abc import Iterator

#: The attributes by which Python programs climb from a value to the machine.
CLIMBS = (
    "().__class__", "().__class__.__bases__", "().__class__.__base__.__subclasses__()", "''.__class__.__mro__", "(1).__class__.__mro__[1]",
    "[].__class__.__init__.__globals__", "{}.__class__.__init_subclass__", "fetch.__globals__", "fetch.__code__", "fetch.__closure__",
    "fetch.__builtins__", "fetch.__self__", "fetch.__module__", "fetch.__func__", "fetch.__wrapped__", "fetch.__defaults__",
    "print.__self__", "len.__self__", "(lambda: 0).__globals__", "(lambda: 0).__code__.co_consts", "(lambda: 0).__code__.replace",
    "Exception().__traceback__", "Exception.__subclasses__()", "type.__subclasses__(type)", "object.__subclasses__()",
    "type('X', (), {})", "type('X', (object,), {'__del__': lambda s: 1})", "__import__('os')", "__import__('subprocess')",
    "__builtins__", "__loader__", "__spec__", "__file__", "__cached__", "globals()", "locals()", "vars()", "dir()",
    "getattr((), '__class__')", "getattr(fetch, '__glob' + 'als__')", "eval('__import__(\"os\")')", "eval('().__class__.__base__')",
    "exec('import os; os.system(\"id\")')", "compile('1', 'x', 'eval')", "breakpoint()", "help()", "input()", "memoryview(b'x')",
    "'{0.__class__.__init__.__globals__}'.format(fetch)", "f'{fetch.__class__.__mro__}'", "'%(x)s' % fetch", "super()",
    "(i for i in []).gi_frame", "(i for i in []).gi_frame.f_back.f_globals", "fetch(1).cr_frame", "fetch(1).cr_code",
    "fetch(1).__await__()", "fetch(1).send(None)", "fetch(1).throw(ValueError)", "asyncio.get_event_loop()",
    "classmethod(fetch)", "staticmethod(fetch).__func__", "property(fetch).fget.__globals__",
)  # fmt: skip

MODULES = (
    "subprocess", "socket", "ctypes", "importlib", "builtins", "inspect", "gc", "threading", "multiprocessing", "signal", "pickle", "marshal",
    "shutil", "tempfile", "urllib.request", "http.client", "ssl", "select", "mmap", "resource", "fcntl", "pty", "code", "codeop", "pdb",
    "runpy", "site", "sysconfig", "platform", "getpass", "pwd", "grp", "webbrowser", "ftplib", "smtplib", "sqlite3", "zipimport",
    "pkgutil", "_thread", "_socket", "_posixsubprocess", "posix", "cairn", "pydantic_monty", "requests", "httpx", "numpy", "imp", "faulthandler",
    "atexit", "weakref", "tracemalloc", "concurrent.futures", "asyncio.subprocess", "xmlrpc.client", "socketserver", "cffi", "nt", "winreg",
)  # fmt: skip

PATHS = (
    "/etc/passwd", "/etc/shadow", "/proc/self/environ", "/proc/self/maps", "/proc/1/cmdline", "/proc/self/mem", "/dev/null", "/dev/zero",
    "/dev/random", "../../../etc/passwd", "~/.ssh/id_rsa", "cairn.db", ".cairn/cairn.db", "/", ".", "", "\0", "/tmp/x", "file:///etc/passwd",
    "/proc/self/fd/0", "/proc/self/fd/3", "/sys/kernel", "/root", "C:\\\\x", "/etc/../etc/passwd", "//etc//passwd", "a" * 5000,
)  # fmt: skip

SYSTEM = (
    "import os\nos.system('id')", "import os\nos.environ['PATH']", "import os\nos.getenv('CANARY')", "import os\nos.listdir('/')",
    "import os\nos.popen('id')", "import os\nos.fork()", "import os\nos.kill(1, 9)", "import os\nos.execv('/bin/sh', ['sh'])",
    "import os\nos._exit(0)", "import os\nos.getpid()", "import os\nos.remove('/tmp/x')", "import os\nos.rename('/a', '/b')",
    "import os\nos.chdir('/etc')\nopen('passwd').read()", "import os\nos.urandom(64).hex()", "import os\nos.walk('/')",
    "import os\nos.open('/etc/passwd', 0)", "import os\nos.symlink('/etc', 'x')", "import os\nos.mkdir('/tmp/evil')", "import os\nos.getcwd()",
    "import sys\nsys.exit(3)", "import sys\nsys.modules", "import sys\nsys._getframe()", "import sys\nsys.path", "import sys\nsys.stdout.buffer",
    "import sys\nsys.setrecursionlimit(10**9)", "import sys\nsys.settrace(print)", "import sys\nsys.stdin.read()", "import sys\nsys.argv",
    "from pathlib import Path\nPath('/etc/passwd').read_text()", "from pathlib import Path\nlist(Path('/').iterdir())",
    "from pathlib import Path\nPath('/tmp/evil').write_text('x')", "from pathlib import Path\nPath.home()",
    "from pathlib import Path\nPath('/etc/passwd').exists()", "from pathlib import Path\nPath('x').unlink()",
    "import time\ntime.sleep(10**9)", "import asyncio\nasyncio.run(fetch(1))", "import asyncio\nawait asyncio.create_subprocess_shell('id')",
    "import asyncio\nawait asyncio.open_connection('127.0.0.1', 80)", "import datetime\ndatetime.datetime.now()", "import random\nrandom.random()",
)  # fmt: skip

MEMORY = (
    "'a' * 10**10", "[0] * 10**9", "'a' * 2**40", "b'x' * 10**11", "list(range(10**9))", "dict.fromkeys(range(10**8))", "10 ** 10 ** 10",
    "2 ** (2 ** 40)", "1 << 10**11", "x = 'a'\nwhile True: x += x", "x = []\nwhile True: x.append(x * 2)", "x = [1]\nwhile True: x += x",
    "x = {}\ni = 0\nwhile True:\n    x[i] = 'a' * 1000\n    i += 1", "'%1000000000d' % 1", "f'{1:1000000000}'", "'x'.ljust(10**10)",
    "'x'.center(10**10)", "'a,' * 10**8", "('a' * 10**6).replace('a', 'b' * 10**5)", "','.join(['a' * 10**6] * 10**5)", "bytes(10**11)",
    "[[0] * 1000 for _ in range(10**7)]", "set(range(10**9))", "tuple(range(10**9))", "str(10**5000000)", "'a'.zfill(10**10)",
    "import json\njson.dumps(['a' * 10**6] * 10**4)", "import re\nre.sub('a', 'b' * 10**6, 'a' * 10**6)", "(0,) * 10**10",
    "from collections import deque\ndeque(range(10**9))", "sorted(range(10**9))", "list('a' * 10**9)", "int('9' * 10**7) * int('9' * 10**7)",
)  # fmt: skip

TIME = (
    "while True: pass", "for i in range(10**12): pass", "sum(range(10**12))", "max(range(10**12))", "all(True for _ in range(10**12))",
    "x = 0\nwhile x < 10**12: x += 1", "[x for x in range(10**6) for y in range(10**6) if False]", "import re\nre.match('(a+)+$', 'a' * 40 + 'b')",
    "import re\nre.match('(a|a)*$', 'a' * 40 + 'b')", "import re\nre.search('(x+x+)+y', 'x' * 50)", "def f(n): return f(n-1) + f(n-2) if n > 1 else n\nf(60)",
    "while True:\n    try: 1/0\n    except ZeroDivisionError: pass", "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    "async def f():\n    while True: pass\nawait f()", "import asyncio\nasync def f():\n    while True: await asyncio.sleep(0)\nawait asyncio.wait_for(f(), 1)",
    "pow(3, 10**8, 10**1000)", "import math\nmath.factorial(10**6)", "sorted([str(i) for i in range(10**7)])", "'a' in ('b' * 10**8)",
    "any(x == -1 for x in range(10**12))", "list(map(str, range(10**9)))", "x = 1\nwhile True: x = (x * 31) % 1000003", "import itertools\nlist(itertools.permutations(range(12)))",
    "import itertools\nfor x in itertools.count(): pass", "import itertools\nlist(itertools.product(range(100), repeat=6))", "hash(tuple(range(10**8)))",
)  # fmt: skip

DEPTH = (
    "def f(): return f()\nf()", "f = lambda: f()\nf()", "def f(): g()\ndef g(): f()\nf()", "x = []\nx.append(x)\nx", "x = {}\nx['x'] = x\nx", "x = []\nx.append(x)\nstr(x)",
    "x = []\nx.append(x)\nx == x", "x = []\nfor _ in range(10**5): x = [x]\nx", "x = []\nfor _ in range(10**5): x = [x]\nstr(x)", "x = ()\nfor _ in range(10**5): x = (x,)\nhash(x)",
    "async def f(): return await f()\nawait f()", "class A:\n    def __repr__(self): return repr(self)\nrepr(A())", "class A:\n    def __eq__(self, o): return self == o\nA() == A()",
    "class A:\n    def __getattr__(self, n): return getattr(self, n)\nA().x", "(" * 5000 + ")" * 5000, "[" * 10000 + "]" * 10000, "-" * 20000 + "1", "not " * 10000 + "1",
    "1" + "+1" * 50000, "x = " * 5000 + "1", "lambda: " * 5000 + "1", "f'" + "{f'" * 50 + "'}" * 50 + "'", "if 1:\n" + "".join(" " * i + "if 1:\n" for i in range(1, 300)) + " " * 300 + "1",
    "import json\njson.loads('[' * 10**5)", "eval('(' * 10**4 + ')' * 10**4)", "a" + ".a" * 20000, "a" + "[0]" * 20000, "a" + "()" * 20000, "{" * 3000 + "}" * 3000,
    "try:\n pass\nexcept:\n pass\n" * 3000, "def f(" + ",".join(f"a{i}" for i in range(5000)) + "): pass", "import re\nre.compile('(' * 5000 + ')' * 5000)",
)  # fmt: skip

CALLS = (
    "while True: await fetch(1)", "for i in range(10**6): await fetch(i)", "import asyncio\nawait asyncio.gather(*[fetch(i) for i in range(10**4)])",
    "import asyncio\nawait asyncio.gather(*[fetch(i) for i in range(150)])", "await fetch('a' * 3 * 10**6)", "await fetch([0] * 10**6)", "await fetch(fetch)", "await fetch(fetch(1))", "await fetch(lambda: 1)", "await fetch({1, 2})",
    "await fetch(b'\\xff')", "await fetch(float('nan'))", "await fetch(float('inf'))", "await fetch(10**400)", "await fetch('\\ud800')", "await fetch({(1, 2): 3})", "await fetch({1: 2})", "await fetch(object())", "await fetch(Exception('x'))",
    "await fetch()", "await fetch(1, 2)", "await fetch(item=1, more=2)", "await fetch(1, item=2)", "await fetch(*range(10**5))", "await fetch(**{str(i): i for i in range(10**4)})", "fetch(1)", "x = fetch(1)\nawait x\nawait x",
    "await charge(float('nan'))", "await nothing(1)", "fetch = 5\nawait fetch(1)", "await fetch.call(1)", "await fetch[0]", "del fetch\nawait fetch(1)", "await step('x', 'os.system', 'id')", "await step('x', nothing, 1)", "await step('x')", "await step(fetch)",
    "import asyncio\nasync def f(): await fetch(1)\nawait asyncio.gather(f(), f(), return_exceptions=True)", "import asyncio\nawait asyncio.sleep(-5)", "import asyncio\nawait asyncio.sleep(float('nan'))", "await refuse()", "raise SystemExit(3)", "raise KeyboardInterrupt", "raise BaseException('x')",
    "raise MemoryError", "raise RecursionError", "raise TimeoutError('time limit exceeded')", "assert False, 'x' * 10**7", "raise ValueError('x' * 10**7)", "1/0", "[][5]", "{}['x']", "int('x')", "nothing", "None.x", "'x' + 1", "x = 1\nx()",
)  # fmt: skip

OUTPUT = (
    "print('a' * 10**7)", "for _ in range(10**5): print('a' * 100)", "while True: print('a' * 1000)", "'a' * 3 * 10**6", "list(range(10**6))", "print('\\ud800')", "print('\\0' * 1000)", "print('\\x1b[2J' * 1000)", "print(*range(10**5))", "import sys\nfor _ in range(10**5): sys.stderr.write('x' * 100)",
    "print(end='a' * 10**7)", "{str(i): 'x' * 100 for i in range(10**5)}",
)  # fmt: skip

BROKEN = (
    "", " ", "\n\n", "\0", "\ufeff1", "1 +", "def (", "return 5", "yield 1", "await", "async", "class", "import", "from . import x", "from __future__ import braces", "💥", "x = 'abc", '"""', "\t 1\n 2", "if", "lambda", "@", "match 1:", "%%time", "!ls", "```python\n1\n```", "print 'x'", "1;;2", "a b",
    "\x01\x02", "é = 1\né", "𝕏 = 1\nX", "nonlocal x", "global x\nx", "break", "continue", "async with x: pass", "async for x in y: pass", "def f(): yield 1\nlist(f())", "class A(int): pass\nA()", "class A(Exception): pass\nraise A()", "del x", "exec('x = ')", "eval('')", "with open('x') as f: pass",
)  # fmt: skip


def programs() -> Iterator[tuple[str, str]]:
    """All of them, by what they try."""
    for climb in CLIMBS:
        yield "climb", f"import asyncio\nx = {climb}\nstr(x)"
    for module in MODULES:
        yield "import", f"import {module}\nstr({module})"
    for path in PATHS:
        yield "file", f"open({path!r}).read()"
    for path in PATHS[:12]:
        yield "file", f"open({path!r}, 'w').write('x')"
    for name, texts in (
        ("system", SYSTEM),
        ("memory", MEMORY),
        ("time", TIME),
        ("depth", DEPTH),
        ("calls", CALLS),
        ("output", OUTPUT),
        ("broken", BROKEN),
    ):
        for text in texts:
            yield name, text
