"""Save memory: filter, compress and write a dump, from /proc/vmcore or from another dump.

TARGET is a file, an existing directory (a directory for this crash is made in it), "-" for a flattened
stream on standard output, or a URL: disk:UUID=…/dir, nfs://host/export, ssh://user@host/dir,
raw:/dev/sdb1, https://host/path.

examples:
  kdumpy capture /proc/vmcore /var/crash          by hand, in a capture kernel's shell
  kdumpy capture vmcore small -d 31               leave more out of a dump
  kdumpy capture vmcore other --compress lzo      compress it anew, for a tool that knows no zstd
  kdumpy capture vmcore small -d 1,31             level 31 only if the disk has no room for level 1
  kdumpy capture vmcore small --dry-run           how large would it be?
  kdumpy capture vmcore - | ssh host 'cat >vmcore.flat'

The dump level is a sum: 1 zero pages, 2 page cache, 4 page cache of private pages, 8 user data, 16 free pages.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kdumpy.cli.common import add_erase, add_json, erased, print_json
from kdumpy.errors import NoSpace, UsageError
from kdumpy.units import human_bytes, human_seconds, printable

if TYPE_CHECKING:
    from kdumpy.capture.pipeline import Options, Summary
    from kdumpy.capture.plan import Plan
    from kdumpy.dumpfile import Dump
    from kdumpy.dumpfile.sink import Sink

_URLS = ("disk:", "nfs:", "ssh:", "raw:", "http:", "https:", "file:")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("source", type=Path, metavar="SOURCE", help="/proc/vmcore, or a dump in any format")
    parser.add_argument("target", metavar="TARGET", help="a file, a directory, - or a URL")
    parser.add_argument("-d", "--level", type=_levels, default=(31,), metavar="LEVEL",
                        help="what to leave out, 0 to 31 (default: 31); several, as 1,31: the next where space lacks")
    add_compression(parser)
    parser.add_argument("--format", choices=("kdump", "elf"), default="kdump",
                        help="kdump-compressed (the default), or ELF, uncompressed, for gdb and other tools")
    add_erase(parser)
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes (default: one a CPU)")
    parser.add_argument("--small", action="store_true", help="take as little memory as can be, and more time")
    parser.add_argument("--dry-run", action="store_true", help="tell how large the dump would be; write nothing")
    parser.add_argument("--force", action="store_true", help="write over a file that is there")
    add_json(parser)


def add_compression(parser: argparse.ArgumentParser) -> None:
    """Add --compress."""
    parser.add_argument("--compress", default=("zstd", None), metavar="METHOD[:LEVEL]", type=_compression,
                        help="zstd (the default), lzo, zlib, snappy or none; a level of zstd or zlib behind a colon")


def run(arguments: argparse.Namespace) -> int:
    """Write the dump; 1 when it is not whole, or a secret could not be looked for."""
    from kdumpy.capture.pipeline import Options
    from kdumpy.dumpfile import open_dump

    if arguments.workers < 0:
        raise UsageError("not a number of processes", where="--workers", why=str(arguments.workers))
    method, method_level = arguments.compress
    options = Options(level=arguments.level[0], compression=method, compression_level=method_level,
                      format=arguments.format, workers=arguments.workers, small=arguments.small)
    with open_dump(arguments.source) as source:
        dump = erased(source, arguments.source, arguments)
        if arguments.dry_run:
            return _estimate(dump, options, as_json=arguments.json)
        where, summary = _save(dump, arguments, options)
        whole = not summary.unreadable_pages and _all_judged(dump)
        if arguments.json:
            told = getattr(dump, "told", ())
            print_json({"path": where, **summary.as_json(), **({"erased": list(told)} if told else {})})
        elif arguments.target != "-":
            show(summary, where)
    return 0 if whole else 1


def _all_judged(dump: Dump) -> bool:
    """Whether --erase could look for all that it names."""
    if not hasattr(dump, "told"):
        return True
    from kdumpy.cli.erasing import all_judged

    return all_judged(dump)


def _save(dump: Dump, arguments: argparse.Namespace, options: Options) -> tuple[str, Summary]:
    """Try the levels in turn; return where the dump is, and what it holds."""
    from kdumpy.capture.pipeline import save
    from kdumpy.capture.plan import Plan
    from kdumpy.cli.progress import bar

    levels: tuple[int, ...] = arguments.level
    for number, level in enumerate(levels, 1):
        chosen = replace(options, level=level)
        plan = Plan.make(dump, level)
        try:
            with _opened(arguments, dump) as (sink, where, free):
                _check_space(dump, chosen, plan, free, name=sink.name)
                summary = save(dump, sink, chosen, bar(dump.page_size), plan=plan)
            return where[-1], summary
        except NoSpace as error:
            if number == len(levels):
                raise
            print(f"kdumpy: {printable(str(error))}; trying level {levels[number]}", file=sys.stderr)
    raise AssertionError("a level was tried")


def _check_space(dump: Dump, options: Options, plan: Plan, free: int | None, *, name: str) -> None:
    """Raise NoSpace before anything is written when there cannot be room."""
    from kdumpy.capture.pipeline import estimate

    if free is None or free > (plan.kept + plan.kept // 64) * dump.page_size:   # even uncompressed
        return
    needed = estimate(dump, options, plan=plan).bytes
    if needed * 9 // 10 > free:
        raise NoSpace("no room for the dump", where=name,
                      why=f"about {human_bytes(needed)} are needed, {human_bytes(free)} are free",
                      mend="make room, or write less: a higher dump level")


@contextmanager
def _opened(arguments: argparse.Namespace, dump: Dump) -> Iterator[tuple[Sink, list[str], int | None]]:
    """Open the target; give it its final name when all went well, and remove what was begun when not.

    Yields the sink, a list whose last item is where the dump is (known at the end), and the free bytes if known.
    """
    name: str = arguments.target
    if name == "-":
        from kdumpy.dumpfile.sink import StreamSink

        if sys.stdout.isatty():
            raise UsageError("a dump is not for a terminal", where="TARGET -", mend="pipe it to a program or a file")
        stream = StreamSink(sys.stdout.buffer.write, "standard output", finish=sys.stdout.buffer.flush)
        yield stream, ["-"], None
        stream.close()
    elif name.startswith(_URLS) or Path(name).is_dir():
        with _on_target(name, dump) as found:
            yield found
    else:
        with new_file(Path(name), arguments.source, force=arguments.force) as sink:
            space = os.statvfs(Path(name).parent)
            regular = not Path(name).exists() or Path(name).is_file()
            yield sink, [name], space.f_bavail * space.f_frsize if regular else None


@contextmanager
def _on_target(url: str, dump: Dump) -> Iterator[tuple[Sink, list[str], int | None]]:
    from kdumpy.capture.config import CaptureConfig
    from kdumpy.capture.log import directory_name
    from kdumpy.capture.targets import target_of

    url = url if url.startswith(_URLS) else str(Path(url).resolve())
    target = target_of(url, CaptureConfig(targets=(url,)), directory_name(dump))
    target.prepare()
    name = "vmcore" if target.seekable else "vmcore.flat"
    where: list[str] = []
    try:
        sink = target.open(name)
        try:
            yield sink, where, target.free_bytes()
            sink.close()
            where.append(target.place(target.keep(name)))
        except BaseException:
            target.abandon(name)
            target.discard(name)
            raise
    finally:
        target.close()


@contextmanager
def new_file(path: Path, source: Path, *, force: bool) -> Iterator[Sink]:
    """Write a file beside its place and put it there when all went well; UsageError when something is there."""
    from kdumpy.dumpfile.sink import FileSink

    if path.exists():
        if source.exists() and path.samefile(source):
            raise UsageError("source and target are the same file", where=str(path))
        if not force and not path.is_block_device() and path != Path("/dev/null"):
            raise UsageError("the target is there already", where=str(path), mend="--force writes over it")
    if path.exists() and not path.is_file():        # a device: in its place
        with FileSink(path) as sink:
            yield sink
        return
    # Not `vmcore-incomplete`: that is what a capture that did not finish is called, and it may be the source.
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    sink = FileSink(partial)
    try:
        yield sink
        sink.close()
        partial.replace(path)
    except BaseException:
        sink.close()
        partial.unlink(missing_ok=True)
        raise


def _estimate(dump: Dump, options: Options, *, as_json: bool) -> int:
    from kdumpy.capture.pipeline import estimate

    found = estimate(dump, options)
    if as_json:
        print_json({"pages": found.pages, "bytes": found.bytes, "memory_pages": found.plan.memory,
                    "unfiltered": found.plan.why_unfiltered})
        return 0
    print(f"about {human_bytes(found.bytes)} for {found.pages:,} of {found.plan.memory:,} pages "
          f"({human_bytes(found.pages * dump.page_size)}), level {options.level}, {options.compression}")
    if found.plan.why_unfiltered:
        print(f"all pages are kept: {printable(found.plan.why_unfiltered)}")
    return 0


def show(summary: Summary, where: str) -> None:
    """Say what was written."""
    unit = summary.page_size
    print(f"{printable(where)}: {human_bytes(summary.bytes_written)} in {human_seconds(summary.seconds)}")
    print(f"  {summary.kept_pages:,} of {summary.memory_pages:,} pages kept "
          f"({human_bytes(summary.kept_pages * unit)} of {human_bytes(summary.memory_pages * unit)}); "
          f"of these {summary.zero_pages:,} zero, {summary.shared_pages:,} equal to another")
    if summary.kinds:
        named = (f"{name.replace('_', ' ')} {human_bytes(pages * unit)}"
                 for name, pages in summary.kinds.items() if pages)
        print(f"  memory: {', '.join(named)}")
    if summary.unfiltered:
        print(f"  all pages were kept: {printable(summary.unfiltered)}")
    if summary.unreadable_pages:
        print(f"  {summary.unreadable_pages:,} pages could not be read and are missing")


def _levels(text: str) -> tuple[int, ...]:
    words = text.split(",")
    if not all(word.isdecimal() and int(word) <= 31 for word in words):
        raise argparse.ArgumentTypeError(f"not a dump level from 0 to 31: {text}")
    return tuple(map(int, words))


def _compression(text: str) -> tuple[str, int | None]:
    from kdumpy.dumpfile.compressors import METHODS

    name, _, level = text.partition(":")
    if name not in METHODS:
        raise argparse.ArgumentTypeError(f"no such compression: {name} (there are {', '.join(METHODS)})")
    if level and not level.removeprefix("-").isdecimal():
        raise argparse.ArgumentTypeError(f"not a level: {level}")
    return name, int(level) if level else None
