"""The shell on memory that a stray write has damaged: each command ends soon, with where and how far it got."""

from __future__ import annotations

import inspect
import itertools
import struct
import time
from collections.abc import Callable

import drgn
import pytest
from drgn.helpers.linux import fs
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.mm import find_vmap_area
from drgn.helpers.linux.pid import find_task

import kdumpy
import lab
from brokendump import Broken, member
from kdumpy.crash import registry
from kdumpy.errors import DamagedDump
from kdumpy.kernel import maple, paths, taskreader
from kdumpy.kernel.circles import check_xarray, guard_lists
from kdumpy.kernel.tasks import task_objects

_SECONDS = 20
"""CPU time that one command may take; they take tenths of one."""


def tasks_twice(console: Broken) -> None:
    """The place of process 20 in the tree of process ids holds process 3."""
    slots = _leaf(console).slots
    console.write_word(member(slots[20]), slots[3].value_())


def tasks_lost(console: Broken) -> None:
    """The place of process 20 leads to where no memory is."""
    console.write_word(member(_leaf(console).slots[20]), 0xffff_dead_0000_0000)


def _leaf(console: Broken) -> drgn.Object:
    """Return the node of the tree of process ids that holds the first 64."""
    head = console.prog["init_pid_ns"].idr.idr_rt.xa_head.value_()
    node = drgn.Object(console.prog, "struct xa_node *", value=head - 2)
    while node.shift.value_():
        node = drgn.Object(console.prog, "struct xa_node *", value=node.slots[0].value_() - 2)
    return node


def modules_circle(console: Broken) -> None:
    """A module leads to itself."""
    third = list(list_for_each_entry("struct module", console.prog["modules"].address_of_(), "list"))[2]
    console.write_word(member(third.list.next), member(third.list))


def areas_circle(console: Broken) -> None:
    """The leftmost way in the tree of vmalloc's areas leads back to the root, and so does the rightmost."""
    root = console.prog["vmap_area_root"].rb_node.read_()
    for side in ("rb_left", "rb_right"):
        console.write_word(member(getattr(getattr(root, side), side)), root.value_())


def maple_circle(console: Broken) -> None:
    """The first process's tree of areas holds its root a second time."""
    tree = find_task(console.prog, 1).mm.mm_mt
    root = tree.ma_root.value_()
    (node, *_) = maple.nodes(console.prog, root)
    if node.leaf:       # a small tree: its only node becomes one that leads to others
        inner = root & ~0x78 | 2 << 3
        console.write_word(member(tree.ma_root), inner)
        root = inner
    slot = drgn.offsetof(console.prog.type("struct maple_range_64"), "slot")
    console.write_word(node.address + slot, root)


def pids_circle(console: Broken) -> None:
    """The tree of process ids leads to itself, and does not come to its last level."""
    tree = console.prog["init_pid_ns"].idr.idr_rt
    node = drgn.Object(console.prog, "struct xa_node *", value=tree.xa_head.value_() - 2)
    console.write(member(node.shift), b"\x06")
    for number in range(64):
        console.write_word(member(node.slots[number]), tree.xa_head.value_())


def counts(console: Broken) -> None:
    """The first process has four thousand million files and groups, the log has 2^31 records."""
    task = find_task(console.prog, 1)
    for value in (task.files.fdt.max_fds, task.cred.group_info.ngroups):
        console.write(member(value), b"\xff\xff\xff\x7f")
    console.write(member(console.prog["prb"].desc_ring.count_bits), b"\x1f\0\0\0")


def kinds_circle(console: Broken) -> None:
    """The list of slab caches and that of mounts lead to themselves."""
    first = console.prog["slab_caches"].next.read_()
    console.write_word(first.value_(), first.value_())
    mounts = find_task(console.prog, 1).nsproxy.mnt_ns
    entry = mounts.list.next.read_()
    console.write_word(entry.value_(), entry.value_())


def directories_circle(console: Broken) -> None:
    """The directory of the first process's program lies in the program."""
    program = find_task(console.prog, 1).mm.exe_file.f_path.dentry
    console.write_word(member(program.d_parent.d_parent), program.value_())


DAMAGE: dict[str, tuple[Callable[[Broken], None], dict[str, str]]] = {
    "a task twice": (tasks_twice, {"ps": "runs in a circle", "foreach RU bt": "runs in a circle"}),
    "tasks that lead nowhere": (tasks_lost, {"ps": "tree of process ids is damaged"}),
    "modules in a circle": (modules_circle, {"mod": "circle"}),
    "a red-black tree in a circle": (areas_circle, {
        "tree -t rbtree -o vmap_area.rb_node vmap_area_root": "leads back to a node"}),
    "a maple tree in a circle": (maple_circle, {"vm 1": "leads back to a node"}),
    "an XArray in a circle": (pids_circle, {"task 1": "leads back to a node", "ps -p 1": ""}),
    "counts that cannot be": (counts, {"files 1": "", "log": ""}),
    "directories in a circle": (directories_circle, {"vm 1": "", "files 1": ""}),
    "caches and mounts in a circle": (kinds_circle, {"kmem -s": "circle", "mount": "circle"}),
}
"""What is done to the memory, and what commands that meet it say; nothing where they may find another way."""


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_ends_the_command_and_not_the_session(broken: Broken, name: str) -> None:
    damage, expected = DAMAGE[name]
    damage(broken)
    for line, words in expected.items():
        start = time.process_time()
        good, text, errors = broken.attempt(line)
        assert time.process_time() - start < _SECONDS, line
        assert words in errors + text, (line, errors)
        assert good or errors.startswith("kdumpy: "), errors
        assert "Traceback" not in errors
    assert "RELEASE: 6.1" in broken("sys")


@pytest.mark.parametrize("name", ["a task twice", "an XArray in a circle", "counts that cannot be"])
def test_every_command_ends_on_a_damaged_dump(broken: Broken, name: str) -> None:
    DAMAGE[name][0](broken)
    for command in sorted(registry.COMMANDS):
        start = time.process_time()
        good, _, errors = broken.attempt(registry.command(command).example)
        assert time.process_time() - start < _SECONDS, command
        assert good or "kdumpy: " in errors, command
        assert "Traceback" not in errors, command


def test_what_came_before_the_damage_is_shown(broken: Broken) -> None:
    whole = broken("ps").splitlines()
    tasks_twice(broken)
    _, text, errors = broken.attempt("ps")
    assert "address 0x" in errors
    lost = set(whole) - set(text.splitlines())
    assert lost == set()            # the list of processes has what the tree lost


def test_a_task_that_cannot_be_read_takes_no_other_with_it(broken: Broken) -> None:
    whole = broken("ps").splitlines()
    tasks_lost(broken)
    good, text, errors = broken.attempt("ps")
    assert not good
    assert "address ffffdead0000" in errors
    assert "more by the list of processes" in errors
    assert set(text.splitlines()) == set(whole)


@pytest.mark.parametrize("line", ["ps -m", "ps -l", "ps -S", "ps -t"])
def test_views_of_tasks_show_those_that_can_be_reached(broken: Broken, line: str) -> None:
    whole = broken(line).splitlines()
    tasks_lost(broken)
    good, text, errors = broken.attempt(line)
    assert not good
    assert "address ffffdead0000" in errors
    assert "more by the list of processes" in errors
    assert len(text.splitlines()) == len(whole)


def test_looking_up_in_a_tree_that_does_not_end(broken: Broken) -> None:
    areas_circle(broken)
    with pytest.raises(Exception, match="deeper than any can be"):
        find_vmap_area(broken.prog, 0xffff_c900_0000_0000 - (1 << 44))
    pids_circle(broken)
    with pytest.raises(Exception, match="leads back to a node"):
        check_xarray(broken.prog["init_pid_ns"].idr.idr_rt, 1)


def test_the_guards_find_what_drgn_finds(broken: Broken) -> None:
    """On a dump that is whole, what took the place of drgn's helpers answers as they do."""
    from drgn.helpers.linux import rbtree
    from drgn.helpers.linux.mapletree import mt_for_each

    root = broken.prog["vmap_area_root"].address_of_()
    nodes = list(rbtree.rbtree_inorder_for_each(root))
    assert len(nodes) > 50
    assert rbtree.rb_first(root) == nodes[0]
    assert rbtree.rb_last(root) == nodes[-1]
    for before, after in itertools.pairwise(nodes):
        assert rbtree.rb_next(before) == after
        assert rbtree.rb_prev(after) == before
    assert not rbtree.rb_next(nodes[-1])
    tree = find_task(broken.prog, 1).mm.mm_mt.address_of_()
    entries = list(mt_for_each(tree))
    assert len(entries) == find_task(broken.prog, 1).mm.map_count.value_()
    for first, last, entry in entries:
        area = drgn.cast("struct vm_area_struct *", entry)
        assert (area.vm_start.value_(), area.vm_end.value_() - 1) == (first, last)
        assert maple.mtree_load(tree, last) == entry


@pytest.mark.parametrize("kernel", lab.KERNELS)
def test_paths_are_those_that_drgn_finds(kernel: str) -> None:
    guard_lists()
    drgns = inspect.unwrap(fs.d_path)
    with kdumpy.open(lab.dump(kernel, "null-workqueue").path) as opened:
        assert fs.d_path is not drgns
        found = set()
        for task in (task for task in task_objects(opened.prog) if task.mm):
            places = [task.fs.root, task.fs.pwd, task.mm.exe_file.f_path,
                      *(file.f_path for _, file in fs.for_each_file(task) if file)]
            for place in places:
                path = fs.d_path(place)
                assert path == drgns(place) == fs.d_path(place.mnt, place.dentry)
                found.add(path)
        assert {b"/", b"/bin/busybox"} <= found
        assert len(found) > 3


def test_a_path_in_a_circle_is_told(broken: Broken) -> None:
    directories_circle(broken)
    with pytest.raises(DamagedDump, match="directories of a path run in a circle"):
        fs.d_path(find_task(broken.prog, 1).mm.exe_file.f_path)


def test_an_id_that_leads_nowhere_is_told(broken: Broken) -> None:
    broken.write_word(broken.prog["init_pid_ns"].idr.idr_rt.xa_head.address_of_().value_(), (1 << 64) - 1)
    with pytest.raises(drgn.FaultError):
        list(taskreader.tasks_by_id(broken.prog))


@pytest.mark.parametrize("places", [(0,) * 9, (*range(0, 64 * 8, 64), 1 << 33)])
def test_a_task_of_damaged_types_is_read_by_helpers(places: tuple[int, ...]) -> None:
    """BTF comes out of the dump: what it says of struct task_struct may be damaged too."""
    prog = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    names = ("pid", "tgid", "real_parent", "comm", "flags", "exit_state", "on_cpu", "__state", "cpu")
    number = prog.int_type("unsigned int", 4, False)
    made = prog.struct_type("task_struct", 64, [
        drgn.TypeMember(number, name, 8 * place) for name, place in zip(names, places, strict=True)])
    prog.register_type_finder("damaged", lambda *_: made, enable_index=0)
    with pytest.raises(LookupError, match="lie in each other"):
        taskreader.TaskReader(prog)


def test_a_path_without_end_is_told_and_a_long_one_is_not_remembered_for_each_directory(broken: Broken) -> None:
    """Directories of which each is the parent of the one before it, in memory that is not in the dump."""
    prog, made = broken.prog, broken.prog.type("struct dentry")
    parent, name, operations = (drgn.offsetof(made, member) for member in ("d_parent", "d_name.name", "d_op"))
    begin, size, count, text = 0x10000000, drgn.sizeof(made), 40_000, 0x8000000
    chain = bytearray(size * count)
    for number in range(count):
        for offset, value in ((parent, begin + size * (number + 1)), (name, text), (operations, 0)):
            struct.pack_into("<Q", chain, size * number + offset, value)
    words = bytes(chain)
    prog.add_memory_segment(begin, len(words), lambda _, size, at, physical: words[at:at + size])
    prog.add_memory_segment(text, 256, lambda _, size, at, physical: (b"x" * 255 + b"\0")[at:at + size])
    place = find_task(prog, 1).mm.exe_file.f_path.mnt.value_()
    found = paths.Paths(prog)
    with pytest.raises(DamagedDump, match="directories of a path do not end"):
        found.of(place, begin)
    root = begin + size * (count - 10_000)
    struct.pack_into("<Q", chain, size * (count - 1) + parent, begin + size * (count - 1))      # the last is a root
    words = bytes(chain)
    assert found.of(place, root) == (b"/" + b"x" * 255) * 9_999
    assert sum(map(len, found._known.values())) < 1 << 20
    with pytest.raises(DamagedDump, match="no address"):
        found.of(place, (1 << 64) - 1)


def test_a_command_that_does_not_end_is_stopped(broken: Broken) -> None:
    assert broken("set timeout 1") == "timeout: 1\n"
    start = time.process_time()
    good, _, errors = broken.attempt("drgn sum(1 for _ in iter(int, 1))")
    assert not good
    assert time.process_time() - start < 10
    assert errors.startswith("kdumpy: stopped after 1 s of work without a line of output: it was in ")
    assert "set timeout" in errors
    assert "RELEASE" in broken("sys")
    assert "is a number" in broken.fails("set timeout soon")
