"""`touch`: the library's file-system interface has no way to set a time, so this takes the place of its own."""

from __future__ import annotations

import _strptime  # type: ignore[import-not-found]  # noqa: F401 - loaded later, it could not be opened any more
import re
from datetime import UTC, datetime

from .tree import LINK, NOT_FOUND, FileError, Files

NAME = "touch"

#: Options that take a value.
_VALUED = {"-d": "date", "--date": "date", "-t": "stamp", "-r": "reference", "--reference": "reference"}
_STAMP = re.compile(r"(\d\d)?(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(?:\.(\d\d))?")
_SHORT_STAMP = re.compile(r"(\d\d)(\d\d)(\d\d)(\d\d)(?:\.(\d\d))?")
_FORMS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d", "%Y%m%d", "%Y-%m-%d %H:%M:%S%z", "%d %b %Y", "%b %d %Y")


def touch(files: Files, folder: str, argv: list[str], now: float) -> tuple[int, str]:
    """The exit code, and what is said on stderr."""
    try:
        values, flags, paths = _parsed(argv)
        time = _time(files, folder, values, now)
    except ValueError as error:
        return 1, f"touch: {error}\n"
    if not paths:
        return 1, "touch: missing file operand\n"
    problems = [problem for path in paths if (problem := _touched(files, folder, path, time, "c" in flags))]
    return int(bool(problems)), "".join(problems)


def _parsed(argv: list[str]) -> tuple[dict[str, str], set[str], list[str]]:
    values: dict[str, str] = {}
    flags: set[str] = set()
    paths: list[str] = []
    words = iter(argv)
    for word in words:
        option, _, given = word.partition("=")
        if word == "--":
            paths += words
        elif option in _VALUED and word.startswith("--") and given:
            values[_VALUED[option]] = given
        elif word in _VALUED:
            value = next(words, None)
            if value is None:
                raise ValueError(f"option requires an argument -- '{word.lstrip('-')}'")
            values[_VALUED[word]] = value
        elif word == "--no-create":
            flags.add("c")
        elif re.fullmatch(r"-[acmfh]+", word):
            flags |= set(word[1:])
        elif word.startswith("-") and word != "-":
            raise ValueError(f"invalid option -- '{word.lstrip('-')}'")
        else:
            paths.append(word)
    return values, flags, paths


def _time(files: Files, folder: str, values: dict[str, str], now: float) -> float | None:
    """The time that was asked for; None: the present."""
    if "reference" in values:
        try:
            return files.stat(_absolute(folder, values["reference"])).mtime
        except FileError as error:
            raise ValueError(f"failed to get attributes of '{values['reference']}': {error}") from None
    if "stamp" in values:
        return _of_stamp(values["stamp"], now)
    return _of_date(values["date"]) if "date" in values else None


def _of_stamp(stamp: str, now: float) -> float:
    short, long = _SHORT_STAMP.fullmatch(stamp), _STAMP.fullmatch(stamp)
    found = long or short
    if found is None:
        raise ValueError(f"invalid date format '{stamp}'")
    if long is not None:
        century, year = long[1], int(long[2])
        whole = int(century) * 100 + year if century else year + (1900 if year > 68 else 2000)
        rest = [int(part or 0) for part in long.groups()[2:]]
    else:
        whole = datetime.fromtimestamp(now, UTC).year
        rest = [int(part or 0) for part in found.groups()]
    return datetime(whole, *rest, tzinfo=UTC).timestamp()  # type: ignore[arg-type,misc]


def _of_date(text: str) -> float | None:
    if text == "now":
        return None
    if re.fullmatch(r"@-?\d+(\.\d+)?", text):
        return float(text[1:])
    plain = text.strip().removesuffix(" UTC").removesuffix("Z").replace("T", " ")
    for form in _FORMS:
        try:
            found = datetime.strptime(plain, form)
        except ValueError:
            continue
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    raise ValueError(f"invalid date format '{text}'")


def _touched(files: Files, folder: str, path: str, time: float | None, only_existing: bool) -> str:
    """The file has the time; what is said when it cannot."""
    whole = _absolute(folder, path)
    try:
        whole = _followed(files, whole)
        if not files.exists(whole):
            if only_existing:
                return ""
            files.write(whole, b"")
        files.set_time(whole, files.now() if time is None else time)
    except FileError as error:
        text = "No such file or directory" if error.kind == NOT_FOUND else str(error)
        return f"touch: cannot touch '{path}': {text}\n"
    return ""


def _followed(files: Files, path: str) -> str:
    """Links of the whole path followed."""
    parts, done, links = path.split("/")[::-1], "", 0
    while parts:
        part = parts.pop()
        if part in ("", "."):
            continue
        if part == "..":
            done = done.rpartition("/")[0]
            continue
        here = f"{done}/{part}"
        if files.exists(here) and files.stat(here).kind == LINK and links < 40:
            links += 1
            target = files.stat(here).target
            done = "" if target.startswith("/") else done
            parts += target.split("/")[::-1]
        else:
            done = here
    return done or "/"


def _absolute(folder: str, path: str) -> str:
    return path if path.startswith("/") else f"{folder.rstrip('/')}/{path}"
