"""Structured pipes: `|: FILTER` works on the rows of an answer, before they become text.

A filter that keeps whole rows (where, sort, head, tail, uniq) leaves the layout to the command; one that makes others
(columns, count, sum, fields) shows a table. `| PROGRAM` is the shell's, as ever.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import operator
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from kdumpy.crash.command import columns
from kdumpy.errors import UsageError

HELP = """\
pipes: what can stand behind a command

  COMMAND | PROGRAM …        the shell gets the text:  ps | grep -c kworker
  COMMAND |: FILTER …        the rows themselves are filtered, then laid out as ever; several in a row, and a
                             program may follow:  ps |: where state=UN |: sort -rss_kb |: head 5 | less

Filters:
  where CONDITION …          keep the rows for which all conditions hold: FIELD=VALUE, != < <= > >=, ~ and !~ for a
                             regular expression; FIELD=A,B for one of several. In here `>` compares: to write to a
                             file, end with `| cat > FILE`
  sort [-]FIELD …            by these fields; - turns the order round
  head [N], tail [N]         the first or last N (10)
  uniq FIELD …               the first row of each value
  columns FIELD …            these fields only, as a table
  count [FIELD …]            how many rows there are, or how many of each value, the most first
  sum FIELD [by FIELD …]     the sum of a field, or one of each value
  fields                     which fields the rows have
  json                       as --json does

A field inside of others has dots: bt -a |: columns cpu command frames.function; in a condition one match of several is
enough: foreach bt |: where frames.function~mutex_lock |: count command
Numbers are decimal or 0x…; 16 digits are an address.

Example:
  crash> ps |: where kernel_thread=no state=IN |: sort -rss_kb |: columns pid command rss_kb"""

_OPERATORS = ("==", "!=", "<=", ">=", "!~", "=", "<", ">", "~")
_CONDITION = re.compile(r"\s*([A-Za-z_][\w.]*)\s*(==|!=|<=|>=|!~|=|<|>|~)\s*(\"[^\"]*\"|'[^']*'|\S+)")
_TRUTHS = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}
_NOTHING = ("-", "none")
_MOST_DIGITS = 24
_ADDRESS = 1 << 47
"""Numbers from here on are shown as addresses."""
_PLACES = ("address", "start", "end", "virtual", "physical")
"""Fields whose numbers are addresses, of user space and of the machine's memory too."""
_PAGE = 4096
"""Below it nothing is mapped."""

Rows = Iterable[Any]


@dataclasses.dataclass(frozen=True)
class Record:
    """A row that a filter made."""

    values: Mapping[str, Any]


def plain(row: Any) -> dict[str, Any]:
    """Return a row as plain values."""
    return {name: _bare(value) for name, value in row.values.items()} if isinstance(row, Record) \
        else dataclasses.asdict(row)


def _bare(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, tuple | list):
        return tuple(_bare(one) for one in value)
    return {name: _bare(one) for name, one in value.items()} if isinstance(value, Mapping) else value


def apply(rows: Rows, filters: Sequence[str]) -> tuple[Rows, bool]:
    """Return the rows behind the filters, and whether JSON is wanted.

    Raises:
        UsageError: a filter is none. Fields are looked at when the first row comes.
    """
    json = False
    for text in filters:
        name, _, rest = text.strip().partition(" ")
        if name == "json":
            json = True
            continue
        made = FILTERS.get(name)
        if made is None:
            import difflib  # only where something is wrong

            near = difflib.get_close_matches(name, NAMES, n=1)
            raise UsageError(f"there is no filter {name!r}", where="|:",
                             mend=f"did you mean {near[0]!r}?" if near else "programs go behind '|': see 'help pipes'")
        rows = made(rows, rest.strip())
    return rows, json


def table(rows: Rows) -> Iterator[str]:
    """Lay records out as a table; lists of them below each other."""
    found = [row.values for row in rows]
    if not found:
        return
    header = list(dict.fromkeys(name for row in found for name in row))
    right = [all(isinstance(row.get(name), int | float) and not isinstance(row.get(name), bool) for row in found)
             for name in header]
    cells = ([shown(row.get(name), name) for name in header] for row in found)
    yield from columns([name.upper() for name in header], cells, "".join("<>"[side] for side in right))


def shown(value: Any, name: str = "") -> str:
    """Return a value for people; the name of its field tells whether a small number is an address."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        is_address = value >= _ADDRESS or (value >= _PAGE and name.rpartition(".")[2] in _PLACES)
        return f"{value:016x}" if is_address else str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, tuple | list):
        return " ".join(shown(one, name) for one in value) if not any(map(_is_compound, value)) else f"[{len(value)}]"
    if isinstance(value, Mapping) or dataclasses.is_dataclass(value):
        return "{…}"
    return str(value)


def _is_compound(value: Any) -> bool:
    return isinstance(value, tuple | list | Mapping) or dataclasses.is_dataclass(value)


def names_of(row: Any, depth: int = 2) -> list[str]:
    """Return the fields of a row, or of its class, those inside of others with a dot."""
    if isinstance(row, Record):
        return list(row.values)
    if not dataclasses.is_dataclass(row):
        return []
    found = []
    for field in dataclasses.fields(row):
        found.append(field.name)
        value = getattr(row, field.name, None)
        inner = next(iter(value), None) if isinstance(value, tuple) else value
        if not dataclasses.is_dataclass(inner):
            inner = _class_of(row, field.name)      # there is none in this row
        if depth > 1 and dataclasses.is_dataclass(inner):
            found += [f"{field.name}.{name}" for name in names_of(inner, depth - 1)]
    return found


def _class_of(row: Any, name: str) -> type | None:
    """Return the class of what a field holds, or holds some of; None for plain values."""
    import typing

    owner = row if isinstance(row, type) else type(row)
    try:
        waiting = [typing.get_type_hints(owner)[name]]
    except (NameError, KeyError):       # a name that is only there for who checks the types
        return None
    while waiting:
        hint = waiting.pop()
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            return hint
        waiting += typing.get_args(hint)
    return None


def field(row: Any, name: str) -> Any:
    """Return a field of a row; of several things (`frames.function`) that of each.

    Raises:
        UsageError: there is no such field.
    """
    value, path = row, name.split(".")
    for number, part in enumerate(path):
        if isinstance(value, tuple | list):
            return tuple(found for one in value for found in _flat(field(one, ".".join(path[number:]))))
        if isinstance(value, Record):
            value = value.values
        if isinstance(value, Mapping):
            if part not in value and number == 0:
                raise _no_field(row, name)
            value = value.get(part)
        elif dataclasses.is_dataclass(value) and hasattr(value, part):
            value = getattr(value, part)
        else:
            raise _no_field(row, name)
    return value


def _flat(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _no_field(row: Any, name: str) -> UsageError:
    known = names_of(row, 1)
    import difflib  # only where something is wrong

    near = [path for path in names_of(row) if path.endswith(f".{name}")] or difflib.get_close_matches(name, known, n=1)
    return UsageError(f"the rows have no field {name!r}", mend=f"did you mean {' or '.join(map(repr, near))}?" if near
                      else f"they have {', '.join(known)}; '|: fields' lists those inside of these")


def _where(rows: Rows, text: str) -> Iterator[Any]:
    conditions, at = [], 0
    while at < len(text.rstrip()):
        match = _CONDITION.match(text, at)
        if not match:
            raise UsageError(f"{text[at:].strip()!r} is no condition", where="where",
                             mend=f"FIELD and one of {' '.join(_OPERATORS)} and VALUE")
        conditions.append((match[1], _test(match[2], match[3].strip("'\""))))
        at = match.end()
    if not conditions:
        raise UsageError("where wants a condition", mend="such as state=UN")
    return (row for row in rows if all(test(field(row, name), name) for name, test in conditions))


def _test(sign: str, text: str) -> Callable[[Any, str], bool]:
    """Return what tells whether a field's value meets a condition."""
    if sign.endswith("~"):
        try:
            pattern = re.compile(text)
        except re.error as error:
            raise UsageError(f"{text!r} is no regular expression", why=str(error)) from None
        wanted, is_word = sign == "~", bool(re.fullmatch(r"[A-Za-z_]\w*", text) and not re.fullmatch("[0-9a-f]+", text))

        def matches(value: Any, name: str) -> bool:
            if is_word and isinstance(value, int) and not isinstance(value, bool):
                raise UsageError(f"{name} is a number, which holds no {text!r}", where="where",
                                 mend="'|: fields' shows what the others hold")
            return any(pattern.search(shown(one, name)) for one in _each(value)) is wanted

        return matches
    if sign in ("=", "==", "!="):
        choices = text.split(",")
        wanted = sign != "!="
        return lambda value, name: any(one == _as(one, choice, name)
                                       for one in _each(value) for choice in choices) is wanted
    compare = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}[sign]

    def test(value: Any, name: str) -> bool:
        return any(compare(one, _limit(one, text, name)) for one in _each(value) if one is not None)

    return test


def _each(value: Any) -> Iterable[Any]:
    return value if isinstance(value, tuple | list) else (value,)


def _as(value: Any, text: str, name: str) -> Any:
    """Return a condition's text as a value like one of the rows'.

    Raises:
        UsageError: it is none.
    """
    if isinstance(value, bool):
        if text.lower() not in _TRUTHS:
            raise UsageError(f"{name} is yes or no", where="where")
        return _TRUTHS[text.lower()]
    if value is None or (text == "-" and not isinstance(value, str)):
        return None if text in _NOTHING else text
    if isinstance(value, int | float):
        if len(text) <= _MOST_DIGITS:
            for base in (16,) if len(text) == 16 else (0, None, 16):
                try:
                    return float(text) if base is None else int(text, base)
                except ValueError:
                    continue
        raise UsageError(f"{text!r} is no number, and {name} is one", where="where")
    if name == "state" and len(text) == 1:
        from kdumpy.crash.commands.ps import STATES

        return STATES.get(text, text)
    return text


def _limit(value: Any, text: str, name: str) -> Any:
    """Return a condition's text as what a value can be more or less than.

    Raises:
        UsageError: it cannot.
    """
    if _is_compound(value):
        raise _has_fields(name)
    limit = _as(value, text, name)
    if limit is None:
        raise UsageError(f"nothing is more or less than {text!r}", where="where")
    return limit


def _has_fields(name: str) -> UsageError:
    return UsageError(f"{name} has fields of its own", mend=f"name one of them as {name}.FIELD: '|: fields' lists them")


def _key(value: Any, name: str) -> Any:
    """Return what tells a value from others.

    Raises:
        UsageError: it is made of several.
    """
    if any(_is_compound(one) for one in (value if isinstance(value, tuple | list) else (value,))):
        raise _has_fields(name)
    if isinstance(value, list):
        return tuple(value)
    return value if isinstance(value, Hashable) else shown(value)


def _order(value: Any) -> tuple[int, Any]:
    """Return what a value is sorted by: nothing first, then numbers, then text."""
    if value is None:
        return 0, 0
    return (1, value) if isinstance(value, int | float) else (2, shown(value))


def _sort(rows: Rows, text: str) -> Iterator[Any]:
    fields = _fields(text, "sort")
    found = list(rows)
    for name in reversed(fields):
        found.sort(key=lambda row, name=name: _order(field(row, name.lstrip("-"))),     # type: ignore[misc]
                   reverse=name.startswith("-"))
    return iter(found)


def _count_of(text: str, name: str) -> int:
    if text and not text.isdecimal():
        raise UsageError(f"{text!r} is no number", where=name)
    return min(int(text or 10), 1 << 40)


def _head(rows: Rows, text: str) -> Iterator[Any]:
    return itertools.islice(rows, _count_of(text, "head"))


def _tail(rows: Rows, text: str) -> Iterator[Any]:
    return iter(collections.deque(rows, maxlen=min(_count_of(text, "tail"), 1 << 24)))


def _uniq(rows: Rows, text: str) -> Iterator[Any]:
    fields = _fields(text, "uniq")
    seen = set()
    for row in rows:
        key = tuple(_key(field(row, name), name) for name in fields)
        if key not in seen:
            seen.add(key)
            yield row


def _columns(rows: Rows, text: str) -> Iterator[Record]:
    fields = _fields(text, "columns")
    return (Record({name: field(row, name) for name in fields}) for row in rows)


def _count(rows: Rows, text: str) -> Iterator[Record]:
    fields = text.replace(",", " ").split()
    if not fields:
        yield Record({"count": sum(1 for _ in rows)})
        return
    counts: collections.Counter[tuple[Any, ...]] = collections.Counter(
        tuple(_key(field(row, name), name) for name in fields) for row in rows)
    for key, count in counts.most_common():
        yield Record({"count": count, **dict(zip(fields, key, strict=True))})


def _sum(rows: Rows, text: str) -> Iterator[Record]:
    name, _, rest = text.replace(",", " ").partition(" ")
    by = rest.split()
    if not name or (by and by[0] != "by"):
        raise UsageError("sum wants a field, then perhaps 'by' and fields", where="sum")
    sums: dict[tuple[Any, ...], float] = {}
    for row in rows:
        value = field(row, name)
        if isinstance(value, tuple | list):
            value = sum(one for one in value if isinstance(one, int | float))
        if not isinstance(value, int | float):
            raise UsageError(f"{name} is no number", where="sum")
        key = tuple(_key(field(row, one), one) for one in by[1:])
        sums[key] = sums.get(key, 0) + value
    for key, total in sorted(sums.items(), key=lambda item: -item[1]):
        yield Record({name: total, **dict(zip(by[1:], key, strict=True))})


def _describe(rows: Rows, text: str) -> Iterator[Record]:
    for row in rows:
        for name in names_of(row):
            yield Record({"field": name, "example": shown(field(row, name), name)[:60]})
        return


def _fields(text: str, name: str) -> list[str]:
    fields = text.replace(",", " ").split()
    if not fields:
        raise UsageError(f"{name} wants fields", mend="'|: fields' tells which there are")
    return fields


FILTERS: dict[str, Callable[[Rows, str], Iterator[Any]]] = {
    "where": _where, "sort": _sort, "head": _head, "tail": _tail, "uniq": _uniq, "columns": _columns, "count": _count,
    "sum": _sum, "fields": _describe,
}
NAMES = (*FILTERS, "json")
"""What can stand behind `|:`."""
