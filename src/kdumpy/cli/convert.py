"""Convert a dump: to another format or compression, flattened, split in parts, or put together from parts.

Every page is kept as it is; to leave pages out, use kdumpy capture IN OUT -d LEVEL. From kdump-compressed to
kdump-compressed the pages are copied without unpacking them, unless --compress or --erase asks for more.

examples:
  kdumpy convert vmcore.elf vmcore                  an ELF dump, compressed with zstd
  kdumpy convert vmcore vmcore.elf --to elf         for gdb, and for tools that read ELF alone
  kdumpy convert vmcore other --compress zlib       for an old crash or makedumpfile, which know no zstd
  kdumpy convert vmcore.flat vmcore                 a stream that came through ssh, as makedumpfile -R does
  kdumpy convert vmcore - | ssh host 'cat >flat'    and the other way round
  kdumpy convert vmcore part --split 4              part-1 … part-4, with about as many pages each
  kdumpy convert part-1 part-2 part-3 part-4 vmcore put together again
  kdumpy convert vmcore public --erase keys,environment,user

Exits with 1 when the dump is not whole, or a secret could not be looked for.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kdumpy.cli.capture import add_compression, new_file
from kdumpy.cli.common import add_erase, add_json, erased, print_json
from kdumpy.errors import DamagedDump, UsageError
from kdumpy.units import human_bytes, human_seconds, printable

if TYPE_CHECKING:
    from kdumpy.dumpfile import Dump
    from kdumpy.dumpfile.kdump import KdumpDump
    from kdumpy.dumpfile.sink import Buffer, Sink

_MOST_PARTS = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("paths", type=Path, nargs="+", metavar="IN… OUT",
                        help="the dump (or the parts of a split one), and the file to write; - is standard output, "
                             "flattened")
    parser.add_argument("--to", choices=("kdump", "elf"), default="kdump",
                        help="kdump-compressed (the default), or ELF, uncompressed")
    add_compression(parser)
    parser.set_defaults(compress=None)
    parser.add_argument("--flattened", action="store_true", help="write a stream, as makedumpfile -F does")
    parser.add_argument("--split", type=int, metavar="N",
                        help="write N parts: OUT-1, OUT-2 …, or N files that are named instead of OUT")
    add_erase(parser)
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes (default: one a CPU)")
    parser.add_argument("--force", action="store_true", help="write over files that are there")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the dump; 1 when it is not whole, or a secret could not be looked for."""
    from kdumpy.dumpfile import open_dump

    started = time.monotonic()
    sources, targets = _paths(arguments)
    if arguments.erase and len(sources) > 1:
        raise UsageError("--erase wants one dump", where="--erase", mend="put the parts together first")
    with open_dump(sources[0], *sources[1:]) as source:
        dump = erased(source, sources[0], arguments)
        try:
            found = _convert(dump, sources, targets, arguments)
        except DamagedDump as error:
            raise DamagedDump(error.what, where=error.where, why=error.why,
                              mend=f"kdumpy repair {sources[0]} OUT makes a readable dump of it") from error
    found = {"paths": list(map(str, targets)), **found, "seconds": round(time.monotonic() - started, 3)}
    if arguments.json:
        print_json(found)
    elif str(targets[0]) != "-":
        _show(found)
    return 0 if found["complete"] and not _doubtful(dump) else 1


def _paths(arguments: argparse.Namespace) -> tuple[list[Path], list[Path]]:
    """Return the dumps and the files to write; UsageError where they make no sense."""
    paths: list[Path] = arguments.paths
    number: int | None = arguments.split
    if number is not None and not 2 <= number <= _MOST_PARTS:
        raise UsageError("a dump is split in 2 to 1024 parts", where=f"--split {number}")
    if number is not None and len(paths) == 1 + number:
        sources, targets = paths[:1], paths[1:]
    else:
        sources, targets = paths[:-1], paths[-1:]
        if number is not None:
            targets = [targets[0].with_name(f"{targets[0].name}-{part}") for part in range(1, number + 1)]
    if not sources:
        raise UsageError("IN and OUT are wanted", where=str(paths[0]), mend="see 'kdumpy convert --help'")
    stream = paths[-1] == Path("-")
    if number is not None and (stream or arguments.flattened or arguments.to == "elf"):
        raise UsageError("only a kdump-compressed file can be split", where=f"--split {number}")
    if arguments.to == "elf" and arguments.compress not in (None, ("none", None)):
        raise UsageError("ELF dumps are not compressed", where="--compress", mend="leave --to elf away")
    if stream and sys.stdout.isatty():
        raise UsageError("a dump is not for a terminal", where="OUT -", mend="pipe it to a program or a file")
    if stream and arguments.json:
        raise UsageError("standard output holds the dump already", where="--json", mend="name a file as OUT")
    if arguments.workers < 0:
        raise UsageError("not a number of processes", where="--workers", why=str(arguments.workers))
    return sources, targets


def _convert(dump: Dump, sources: list[Path], targets: list[Path], arguments: argparse.Namespace) -> dict[str, object]:
    from kdumpy.dumpfile.storedcopy import parts_of

    parts = parts_of(dump) if arguments.to == "kdump" else None
    method = ("none", None) if arguments.to == "elf" else arguments.compress or (None if parts else ("zstd", None))
    stored = parts is not None and method in (None, (dump.compression, None))
    complete = not dump.incomplete and not getattr(dump, "gaps", ())
    if len(targets) > 1:
        pages, size = _split(dump, parts if stored else None, method, sources, targets, arguments)
    else:
        with _written(targets[0], sources, arguments) as sink:
            if stored:
                assert parts is not None
                pages, size = _copy(parts, sink, complete=complete)
            else:
                pages, size, unreadable = _anew(dump, sink, method, arguments)
                complete = complete and not unreadable
    return {"format": arguments.to, "compression": dump.compression if stored else (method or ("none",))[0],
            "pages": pages, "page_size": dump.page_size, "bytes": size, "copied_as_stored": stored,
            "complete": complete, "erased": list(getattr(dump, "told", ()))}


@contextmanager
def _written(path: Path, sources: list[Path], arguments: argparse.Namespace) -> Iterator[Sink]:
    """Open what is to be written, as a stream where that is asked for."""
    from kdumpy.dumpfile.sink import StreamSink

    if str(path) == "-":
        stream = StreamSink(sys.stdout.buffer.write, "standard output", finish=sys.stdout.buffer.flush)
        yield stream
        stream.close()
        return
    with ExitStack() as stack:
        _refuse_sources(path, sources)
        file = stack.enter_context(new_file(path, sources[0], force=arguments.force))
        if not arguments.flattened:
            yield file
            return
        stream = StreamSink(_Appended(file), str(path), finish=file.sync)
        yield stream
        stream.close()


def _refuse_sources(path: Path, sources: list[Path]) -> None:
    for source in sources:
        if path.exists() and source.exists() and path.samefile(source):
            raise UsageError("source and target are the same file", where=str(path))


class _Appended:
    """Writes pieces of bytes one behind the other into a sink."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._end = 0

    def __call__(self, data: Buffer) -> None:
        view = memoryview(data)  # type: ignore[arg-type]  # numpy's arrays are buffers; mypy knows it from 3.12 on
        self._sink.write_at(self._end, data)
        self._end += view.nbytes


def _copy(parts: list[KdumpDump], sink: Sink, pages: tuple[int, int] | None = None, *,
          complete: bool = True) -> tuple[int, int]:
    from kdumpy.cli.progress import bar
    from kdumpy.dumpfile.storedcopy import copy_stored

    copied = copy_stored(parts, sink, pages=pages, incomplete=not complete, progress=bar(parts[0].page_size))
    return copied.pages, copied.bytes_written


def _anew(dump: Dump, sink: Sink, method: tuple[str, int | None] | None,
          arguments: argparse.Namespace) -> tuple[int, int, int]:
    """Write the pages anew; return pages, bytes, and how many pages could not be read."""
    from kdumpy.capture.pipeline import Options, save
    from kdumpy.cli.progress import bar

    name, level = method or ("none", None)
    options = Options(level=0, compression=name, compression_level=level, format=arguments.to,
                      workers=arguments.workers)
    summary = save(dump, sink, options, bar(dump.page_size))
    return summary.kept_pages, summary.bytes_written, summary.unreadable_pages


def _split(dump: Dump, parts: list[KdumpDump] | None, method: tuple[str, int | None] | None, sources: list[Path],
           targets: list[Path], arguments: argparse.Namespace) -> tuple[int, int]:
    """Write the parts; where the pages are to be written anew, by way of a whole dump beside them."""
    from kdumpy.dumpfile import splitset
    from kdumpy.dumpfile.opening import open_one
    from kdumpy.dumpfile.sink import FileSink
    from kdumpy.dumpfile.storedcopy import parts_of

    for target in targets:
        _refuse_sources(target, sources)
    if parts is not None:
        ranges = splitset.parts(dump, len(targets))
        if len(ranges) < len(targets):
            raise UsageError(f"the dump is too small for {len(targets)} parts", where=dump.source.name,
                             why=f"{len(ranges)} can be made of it")
        pages = size = 0
        with ExitStack() as stack:      # all of them get their names, or none
            sinks = [stack.enter_context(new_file(target, sources[0], force=arguments.force)) for target in targets]
            for sink, part in zip(sinks, ranges, strict=True):
                copied = _copy(parts, sink, part)
                pages, size = pages + copied[0], size + copied[1]
        return pages, size
    whole = targets[0].with_name(f".{targets[0].name}.whole")
    try:
        with FileSink(whole) as sink:
            _anew(dump, sink, method, arguments)
        with open_one(whole) as written:
            return _split(written, parts_of(written), None, sources, targets, arguments)
    finally:
        whole.unlink(missing_ok=True)


def _doubtful(dump: Dump) -> bool:
    """Whether --erase names something that could not be looked for."""
    if not hasattr(dump, "told"):
        return False
    from kdumpy.cli.erasing import all_judged

    return not all_judged(dump)


def _show(found: dict[str, object]) -> None:
    paths, pages, unit, size = found["paths"], found["pages"], found["page_size"], found["bytes"]
    assert isinstance(paths, list)
    assert isinstance(pages, int)
    assert isinstance(unit, int)
    assert isinstance(size, int)
    how = "copied as they are stored" if found["copied_as_stored"] else "written anew"
    seconds = found["seconds"]
    assert isinstance(seconds, float)
    print(f"{printable(', '.join(paths))}: {found['format']}, {found['compression']}, {human_bytes(size)} "
          f"in {human_seconds(seconds)}")
    print(f"  {pages:,} pages ({human_bytes(pages * unit)}), {how}")
    if not found["complete"]:
        print("  it is incomplete: some pages of the source were never written, or cannot be read")
