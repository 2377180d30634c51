"""`ipcs`: shared memory, semaphores and message queues of System V."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import drgn
from drgn.helpers.linux.ipc import (
    decode_sysv_shm_mode_flags,
    for_each_sysv_msg_queue,
    for_each_sysv_sem_array,
    for_each_sysv_shm,
)
from drgn.helpers.linux.user import kuid_val

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.session import Session
from kdumpy.errors import NotInDump


@dataclass(frozen=True)
class SharedMemory:
    """A segment of shared memory."""

    kind: str
    """shm"""
    address: int
    """Of its struct shmid_kernel."""
    key: int
    id: int
    uid: int
    mode: int
    bytes: int
    attached: int
    status: str
    pages_allocated: int
    pages_resident: int
    pages_swapped: int
    inode: int


@dataclass(frozen=True)
class Semaphores:
    """An array of semaphores."""

    kind: str
    """sem"""
    address: int
    """Of its struct sem_array."""
    key: int
    id: int
    uid: int
    mode: int
    semaphores: int


@dataclass(frozen=True)
class MessageQueue:
    """A queue of messages."""

    kind: str
    """msg"""
    address: int
    """Of its struct msg_queue."""
    key: int
    id: int
    uid: int
    mode: int
    used_bytes: int
    messages: int


class Ipcs(Command[Any]):
    """List the shared memory, semaphores and message queues of System V, of the context's namespace.

    Example:
        crash> ipcs -s
        SEM_ARRAY        KEY      SEMID      UID   PERMS NSEMS
        (none allocated)
    """

    names = ("ipcs",)
    example = "ipcs"
    row = SharedMemory
    args = (
        Arg("which", nargs="*", metavar="ID|ADDRESS", help="only these"),
        Arg("-s", dest="semaphores", action="store_true", help="semaphores"),
        Arg("-m", dest="memory", action="store_true", help="shared memory"),
        Arg("-M", dest="details", action="store_true", help="shared memory with its pages and inode"),
        Arg("-q", dest="queues", action="store_true", help="message queues"),
        Arg("-n", dest="task", metavar="PID|TASK", help="of this task's namespace"),
    )

    def rows(self, session: Session, options: Options) -> Iterator[Any]:
        """Yield what there is, kind by kind."""
        task = session.task(options.task) if options.task else session.context
        space = task.nsproxy.ipc_ns.read_() if task.nsproxy else None
        wanted = _kinds(options)
        found = False
        for kind, each, read in ((
                "shm", for_each_sysv_shm, _shared_memory), ("sem", for_each_sysv_sem_array, _semaphores),
                ("msg", for_each_sysv_msg_queue, _queue)):
            if kind not in wanted:
                continue
            for value in each(session.prog if space is None else space):
                row = read(value)
                if not options.which or str(row.id) in options.which or f"{row.address:x}" in options.which:
                    found = True
                    yield row
        if options.which and not found:
            raise NotInDump(f"there is nothing of the id or address {', '.join(options.which)}")

    def render(self, rows: Iterable[Any], session: Session, options: Options) -> Iterator[str]:
        """Lay each kind out as crash does."""
        found = list(rows)
        for number, kind in enumerate(_kinds(options)):
            if number:
                yield ""
            own = [row for row in found if row.kind == kind]
            if options.details and kind == "shm" and own:
                for place, row in enumerate(own):
                    if place:
                        yield ""
                    yield _HEADERS[kind]
                    yield _line(row)
                    yield ("PAGES ALLOCATED/RESIDENT/SWAPPED: "
                           f"{row.pages_allocated}/{row.pages_resident}/{row.pages_swapped}")
                    yield f"INODE: {row.inode:x}"
                continue
            yield _HEADERS[kind]
            yield from map(_line, own)
            if not own:
                yield "(none allocated)"


_HEADERS = {
    "shm": "SHMID_KERNEL     KEY      SHMID      UID   PERMS BYTES      NATTCH STATUS",
    "sem": "SEM_ARRAY        KEY      SEMID      UID   PERMS NSEMS",
    "msg": "MSG_QUEUE        KEY      MSQID      UID   PERMS USED-BYTES   MESSAGES",
}


def _kinds(options: Options) -> list[str]:
    chosen = {"shm": options.memory or options.details, "sem": options.semaphores, "msg": options.queues}
    return [kind for kind, wanted in chosen.items() if wanted or not any(chosen.values())]


def _line(row: Any) -> str:
    start = f"{row.address:016x} {row.key:08x} {row.id:<10} {row.uid:<5} {row.mode:<5o}"
    if row.kind == "shm":
        return f"{start} {row.bytes:<10} {row.attached:<6} {row.status}".rstrip()
    return f"{start} {row.semaphores}" if row.kind == "sem" else f"{start} {row.used_bytes:<12} {row.messages}"


def _permissions(value: drgn.Object) -> tuple[int, int, int, int]:
    return (value.key.value_() & 0xFFFFFFFF, value.id.value_(), kuid_val(value.uid),
            value.mode.value_() & 0o777)


def _shared_memory(shm: drgn.Object) -> SharedMemory:
    mode = shm.shm_perm.mode.value_()
    status = decode_sysv_shm_mode_flags(shm.prog_, mode)
    inode = shm.shm_file.f_inode
    pages = shm.shm_segsz.value_() + int(shm.prog_["PAGE_SIZE"]) - 1 >> int(shm.prog_["PAGE_SHIFT"])
    swapped = 0
    if not shm.shm_file.f_op or "hugetlb" not in _operations(shm):
        # Source: include/linux/shmem_fs.h, struct shmem_inode_info: swapped counts pages.
        info = drgn.container_of(inode, "struct shmem_inode_info", "vfs_inode")
        swapped = info.swapped.value_()
    return SharedMemory("shm", shm.value_(), *_permissions(shm.shm_perm), shm.shm_segsz.value_(),
                        shm.shm_nattch.value_(), "" if status == "0" else status, pages,
                        inode.i_mapping.nrpages.value_(), swapped, inode.value_())


def _operations(shm: drgn.Object) -> str:
    try:
        return str(shm.prog_.symbol(shm.shm_file.f_op.value_()).name)
    except LookupError:
        return ""


def _semaphores(array: drgn.Object) -> Semaphores:
    return Semaphores("sem", array.value_(), *_permissions(array.sem_perm), array.sem_nsems.value_())


def _queue(queue: drgn.Object) -> MessageQueue:
    return MessageQueue("msg", queue.value_(), *_permissions(queue.q_perm), queue.q_cbytes.value_(),
                        queue.q_qnum.value_())


COMMAND = Ipcs()
