"""The verbs and their options. Parsing only; the work of a verb is in the file of its name.

Laws. A verb's file, and what it needs, is imported when the verb runs. A verb is one entry of `VERBS`.
"""

from __future__ import annotations

import argparse

from cairn.errors import UsageError
from cairn.framework.cli.parsing import Arguments, Verb, at_least


def _declare_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="AGENT", help="an agent's name, its file or folder, or FILE:NAME")
    parser.add_argument("message", nargs="?", metavar="MESSAGE", help="what to say; - reads it from standard input")
    parser.add_argument("--id", metavar="ID", help="the conversation; the same id continues it (default: a new one)")
    parser.add_argument("--key", metavar="KEY", help="idempotency key: the same key is the same message, once")
    parser.add_argument("--data", metavar="JSON", help="the first state of a new conversation, a JSON object")
    parser.add_argument("--model", metavar="MODEL", help="another model for this run, as provider:name")


def _run_agent(given: Arguments) -> int:
    from cairn.framework.cli import run

    return run.run(
        run.Request(
            target=given.target,
            message=given.message,
            id=given.id,
            key=given.key,
            data=given.data,
            model=given.model,
            store=given.store,
            json=given.json,
        )
    )


def _declare_dev(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help="agents, files, folders, or module:app; the whole project by default"
    )
    parser.add_argument("--port", type=at_least(0), metavar="N", help="default: PORT, [tool.cairn], or a free one from 4111 on")
    parser.add_argument("--no-open", action="store_true", help="leave the browser alone")


def _dev(given: Arguments) -> int:
    from cairn.framework.cli import dev

    return dev.dev(
        dev.Request(targets=tuple(given.targets), port=given.port, store=given.store, open=not given.no_open, json=given.json)
    )


def _declare_chat(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target", nargs="?", metavar="TARGET", help="an agent of the project, a file, or the URL of a server, agent or chat"
    )
    parser.add_argument("--id", metavar="ID", help="the conversation; the same id continues it (default: a new one)")
    parser.add_argument("--token", metavar="TOKEN", help="the server's bearer token; better in CAIRN_TOKEN")


def _chat(given: Arguments) -> int:
    from cairn.framework.cli import chat

    return chat.chat(chat.Request(target=given.target, id=given.id, token=given.token, store=given.store, json=given.json))


def _declare_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", nargs="?", metavar="AGENT", help="one agent; without it the whole project")


def _info(given: Arguments) -> int:
    from cairn.framework.cli import info

    return info.info(given.target, json=given.json)


def _check(given: Arguments) -> int:
    from cairn.framework.cli import info

    return info.check(given.target, json=given.json)


def _declare_ls(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", nargs="?", metavar="KIND", help="only instances of this kind")
    parser.add_argument("--limit", type=at_least(1), default=100, metavar="N", help="how many to show (100)")
    parser.add_argument("--after", type=at_least(0), default=0, metavar="N", help="continue an earlier listing")


def _ls(given: Arguments) -> int:
    from cairn.framework.cli import ls

    return ls.run(given.store, kind=given.kind, limit=given.limit, after=given.after, json=given.json)


def _declare_approvals(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("address", nargs="?", metavar="KIND/ID", help="one conversation or object; without it all that ask")
    parser.add_argument("--approve", metavar="CALL", help="let this call run, or this step go on, as it is shown")
    parser.add_argument("--reject", metavar="CALL", help="have it not made; the model, or the workflow, is told")
    parser.add_argument("--reason", default="", metavar="TEXT", help="why it is rejected")
    parser.add_argument("--answer", metavar="CALL", help="give a question, or a client's tool, its value")
    parser.add_argument("--output", metavar="JSON", help="the value")
    parser.add_argument("--by", metavar="NAME", help="who answers (default: the user of this machine)")
    parser.add_argument("--limit", type=at_least(1), default=100, metavar="N", help="how many instances to look at (100)")
    parser.add_argument("--after", type=at_least(0), default=0, metavar="N", help="continue an earlier listing")


def _approvals(given: Arguments) -> int:
    from cairn.framework.cli import approvals

    if sum(map(bool, (given.approve, given.reject, given.answer))) > 1:
        raise UsageError("--approve, --reject and --answer contradict each other; give one of them")
    if bool(given.answer) != (given.output is not None):
        raise UsageError("--answer and --output belong together: --answer CALL --output '\"yes\"'")
    return approvals.run(
        approvals.Request(
            store=given.store,
            address=given.address,
            approve=given.approve,
            reject=given.reject,
            answer=given.answer,
            output=given.output,
            reason=given.reason,
            by=given.by,
            limit=given.limit,
            after=given.after,
            json=given.json,
        )
    )


def _declare_schedules(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("address", nargs="?", metavar="KIND/ID", help="one instance; without it all that have some")
    parser.add_argument("--cancel", metavar="SCHEDULE", help="take this one away; a run that began goes on")
    parser.add_argument("--limit", type=at_least(1), default=100, metavar="N", help="how many instances to look at (100)")
    parser.add_argument("--after", type=at_least(0), default=0, metavar="N", help="continue an earlier listing")


def _schedules(given: Arguments) -> int:
    from cairn.framework.cli import schedules

    return schedules.run(schedules.Request(given.store, given.address, given.cancel, given.limit, given.after, json=given.json))


def _declare_log(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("address", metavar="KIND/ID", help="the instance")
    parser.add_argument("--after", type=at_least(-1), default=-1, metavar="N", help="only what follows ordinal N")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as the log grows; Ctrl-C ends it")
    parser.add_argument("--full", action="store_true", help="show long values whole")


def _log(given: Arguments) -> int:
    from cairn.framework.cli import log

    return log.run(given.store, given.address, after=given.after, follow=given.follow, full=given.full, json=given.json)


def _declare_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("address", metavar="KIND/ID", help="the instance")
    parser.add_argument("path", nargs="?", metavar="PATH", help="a directory to list, or a file to show (/)")
    parser.add_argument("--at", type=at_least(0), metavar="OFFSET", help="as they were at this offset of the log")
    parser.add_argument("--since", type=at_least(0), metavar="OFFSET", help="what has changed since then, as a diff")


def _files(given: Arguments) -> int:
    from cairn.framework.cli import files

    return files.run(given.store, given.address, given.path, at=given.at, since=given.since, json=given.json)


def _declare_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("address", metavar="KIND/ID", help="the instance")
    parser.add_argument("--files", metavar="TARGET", help="a new directory, or a file that ends with .tar (./KIND-ID)")
    parser.add_argument("--at", type=at_least(0), metavar="OFFSET", help="as they were at this offset of the log")


def _export(given: Arguments) -> int:
    from cairn.framework.cli import files

    return files.export(given.store, given.address, given.files, at=given.at, json=given.json)


def _store_check(given: Arguments) -> int:
    from cairn.framework.cli import store

    return store.check(given.store, json=given.json)


def _declare_backup(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="TARGET", help="where the copy goes; it must not exist")


def _store_backup(given: Arguments) -> int:
    from cairn.framework.cli import store

    return store.backup(given.store, given.path, json=given.json)


def _doctor(given: Arguments) -> int:
    from cairn.framework.cli import doctor

    return doctor.run(given.store, json=given.json)


def _declare_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="MODEL", help="a real model, as provider:name; the script's is the default")
    parser.add_argument("--seed", type=at_least(0), metavar="N", help="aim at the moment of this seed (default: a random one)")
    parser.add_argument(
        "--pace", type=at_least(0), metavar="N", help="characters a second of the scripted model; 0: no waiting"
    )
    parser.add_argument("--keep", action="store_true", help="keep the demo's folder even when it is interrupted or fails")


def _demo(given: Arguments) -> int:
    from cairn.framework.cli import demo

    return demo.run(demo.Request(model=given.model, seed=given.seed, pace=given.pace, keep=given.keep, json=given.json))


def _declare_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help="module:app, a project's folder, or agents' files; default: this project"
    )
    parser.add_argument("--host", metavar="HOST", help="the address to listen on (HOST, or 127.0.0.1: this machine only)")
    parser.add_argument("--port", type=at_least(0), metavar="PORT", help="the port (PORT, or 8000); 0 for any free one")
    parser.add_argument(
        "--workers", type=at_least(1), default=1, metavar="N", help="processes that share the port and the store"
    )
    parser.add_argument(
        "--auth", choices=("none", "tokens", "open"), help="who may call: this machine, bearer tokens, everyone"
    )
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME", help="a name this server has; repeatable")
    parser.add_argument(
        "--allow-origin", action="append", default=[], metavar="URL", help="an origin whose pages may call; repeatable"
    )
    parser.add_argument(
        "--trust-proxy", action="append", default=[], metavar="NET", help="a proxy's address or network; repeatable"
    )
    parser.add_argument("--log", choices=("text", "json", "none"), default="text", help="the form of the access log on stderr")


def _serve(given: Arguments) -> int:
    from cairn.framework.cli import serve

    return serve.serve(
        serve.Request(
            targets=tuple(given.targets),
            host=given.host,
            port=given.port,
            workers=given.workers,
            store=given.store,
            auth=given.auth,
            hosts=tuple(given.allow_host),
            origins=tuple(given.allow_origin),
            proxies=tuple(given.trust_proxy),
            log=given.log,
            json=given.json,
        )
    )


def _declare_token(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="whose it is")
    parser.add_argument("--tenant", default="default", metavar="TENANT", help="whose conversations it opens (default)")


def _declare_token_create(parser: argparse.ArgumentParser) -> None:
    _declare_token(parser)
    parser.add_argument(
        "--grant", default="read,send,abort", metavar="LIST", help="read, send, abort, manage (read,send,abort)"
    )
    parser.add_argument("--agent", action="append", metavar="PATTERN", help="'support/*', 'support/user-7'; repeatable (all)")
    parser.add_argument("--expires", default="90d", metavar="TIME", help="30d, 12h, 1y, or never (90d)")
    parser.add_argument("--trusted", action="store_true", help="an application's own server: no limit on requests and streams")


def _token_create(given: Arguments) -> int:
    from cairn.framework.cli import token

    return token.create(
        given.store,
        given.name,
        grants=[grant.strip() for grant in given.grant.split(",") if grant.strip()],
        agents=given.agent or ["*"],
        expires=given.expires,
        tenant=given.tenant,
        trusted=given.trusted,
        json=given.json,
    )


def _token_ls(given: Arguments) -> int:
    from cairn.framework.cli import token

    return token.ls(given.store, json=given.json)


def _token_revoke(given: Arguments) -> int:
    from cairn.framework.cli import token

    return token.revoke(given.store, given.name, tenant=given.tenant, json=given.json)


def _declare_skills(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", metavar="PATH", nargs="+", help="a skill's directory, or one that holds skills")


def _skills_check(given: Arguments) -> int:
    from cairn.framework.cli.skills import check

    return check(given.paths, json=given.json)


VERBS: tuple[Verb, ...] = (
    Verb("run", "send one message to an agent and watch it work", _declare_run, _run_agent),
    Verb("serve", "serve agents over HTTP until it is told to stop", _declare_serve, _serve),
    Verb("dev", "talk to the project's agents in the browser; edits are live at once", _declare_dev, _dev),
    Verb("chat", "talk to an agent in the terminal, here or on a server", _declare_chat, _chat),
    Verb("info", "show what was found and what the model would see, offline", _declare_target, _info, has_store=False),
    Verb("check", "list everything that is wrong with the project, offline; for CI", _declare_target, _check, has_store=False),
    Verb("ls", "list instances, who runs them and what they wait for", _declare_ls, _ls),
    Verb("approvals", "list what waits for an answer; approve or reject it", _declare_approvals, _approvals),
    Verb("schedules", "list what rings when; cancel a schedule", _declare_schedules, _schedules),
    Verb("log", "show an instance's log as a timeline", _declare_log, _log),
    Verb("files", "list an instance's files, show one, or what has changed", _declare_files, _files),
    Verb("export", "copy an instance's files into a directory or an archive", _declare_export, _export),
    Verb(
        "store",
        "check or copy a store",
        verbs=(
            Verb("check", "verify every page, checksum and link", run=_store_check),
            Verb("backup", "copy the store while agents go on running in it", _declare_backup, _store_backup),
        ),
    ),
    Verb(
        "token",
        "make, list and revoke the tokens of callers",
        verbs=(
            Verb("create", "make a token and show it once", _declare_token_create, _token_create),
            Verb("ls", "list the tokens there are", run=_token_ls),
            Verb("revoke", "end a token, in running servers too", _declare_token, _token_revoke),
        ),
    ),
    Verb(
        "skills",
        "check skills before a model reads them",
        verbs=(
            Verb(
                "check", "list everything that is wrong with skills, offline", _declare_skills, _skills_check, has_store=False
            ),
        ),
    ),
    Verb("demo", "watch an agent fix a bug, be killed in the middle, and go on", _declare_demo, _demo, has_store=False),
    Verb("doctor", "show what this machine offers and what is missing", run=_doctor),
)
