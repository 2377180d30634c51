"""One pointer of a list that leads nowhere takes nothing else with it; what broke, where and after how much is told."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from drgn.helpers.linux.fs import for_each_mount
from drgn.helpers.linux.irq import irq_to_desc
from drgn.helpers.linux.list import hlist_for_each, list_for_each, list_for_each_entry, list_for_each_reverse
from drgn.helpers.linux.net import for_each_netdev
from drgn.helpers.linux.rbtree import rbtree_inorder_for_each
from drgn.helpers.linux.slab import for_each_slab_cache

from brokendump import Broken, member
from kdumpy.debuginfo.lists import chain
from kdumpy.errors import DamagedDump

NOWHERE = 0xdead_beef_cafe_babe


def cache(console: Broken) -> int:
    return member(list(for_each_slab_cache(console.prog))[20].list.next)


def module(console: Broken) -> int:
    found = list(list_for_each_entry("struct module", console.prog["modules"].address_of_(), "list"))
    return member(found[2].list.next)


def mount(console: Broken) -> int:
    return member(list(for_each_mount(console.prog))[2].mnt_list.next)


def device(console: Broken) -> int:
    return member(next(iter(for_each_netdev(console.prog))).dev_list.next)


def area(console: Broken) -> int:
    found = list_for_each_entry("struct vmap_area", console.prog["vmap_area_list"].address_of_(), "list")
    return member(list(found)[30].list.next)


@pytest.mark.parametrize(("where", "lines", "told"), [
    (cache, ("kmem -s", "kmem -S kmalloc-8"), "list slab_caches: a list breaks off: entry 21, "),
    (module, ("mod", "mod -u", "mod -t"), "list modules: a list breaks off: entry 3, "),
    (mount, ("mount", "mount -f"), ": entry 3, "),
    (device, ("net",), ": entry 1, "),
    (area, ("search -V -c flaky_sample", "search -k 57ac6e9d", "kmem -v"), "dead"),
])
def test_a_pointer_that_leads_nowhere_takes_no_row(broken: Broken, where: Callable[[Broken], int],
                                                   lines: tuple[str, ...], told: str) -> None:
    before = {line: broken.attempt(line)[1] for line in lines}
    place = where(broken)
    broken.write_word(place, NOWHERE)
    for line in lines:
        good, text, errors = _anew(broken).attempt(line)
        assert not good, line
        assert sorted(text.splitlines()) == sorted(before[line].splitlines()), line
        assert told in errors, errors
        assert f"{NOWHERE:016x}" in errors, errors


def _anew(console: Broken) -> Broken:
    """Forget what the shell has read."""
    for name in ("arrays", "slabs"):
        console.shell.session.__dict__.pop(name, None)
    console.kernel.__dict__.pop("modules", None)
    return console


def test_an_interrupt_whose_handlers_cannot_be_read_takes_no_other(broken: Broken) -> None:
    before = broken("irq").splitlines()
    broken.write_word(member(irq_to_desc(broken.prog, 4).action), NOWHERE)
    good, text, errors = broken.attempt("irq")
    assert not good
    assert [line for line in before if line not in text.splitlines()] == \
        [line for line in before if line.startswith("  4 ")]
    assert "not all handlers" in errors or "a list breaks off" in errors
    assert len(text.splitlines()) == len(before)


def test_devices_in_a_circle_are_listed_once_and_soon(broken: Broken) -> None:
    before = broken("dev").splitlines()
    entry = next(bucket for bucket in broken.prog["chrdevs"] if bucket)
    broken.write_word(member(entry.next), entry.value_())
    start = time.process_time()
    good, text, errors = broken.attempt("dev")
    assert time.process_time() - start < 5
    assert not good
    assert set(text.splitlines()) <= set(before)
    assert len(text.splitlines()) >= len(before) - 2
    assert "runs in a circle" in errors


def test_a_circle_ends_before_an_entry_comes_twice(broken: Broken) -> None:
    head = broken.prog["slab_caches"].address_of_()
    whole = [entry.value_() for entry in list_for_each(head)]
    broken.write_word(whole[20], whole[7])
    met: list[int] = []
    with pytest.raises(DamagedDump, match=rf"circle.* entry 21, .* {len(whole) - 21} more"):
        met.extend(entry.value_() for entry in list_for_each(head))
    assert met == whole
    assert [entry.value_() for entry in list_for_each_reverse(head)] == whole[::-1]     # its pointers are whole


def test_two_breaks_leave_what_lies_between_them(broken: Broken) -> None:
    head = broken.prog["slab_caches"].address_of_()
    whole = [entry.value_() for entry in list_for_each(head)]
    broken.write_word(whole[20], NOWHERE)
    broken.write_word(whole[40], 0)
    met: list[int] = []
    with pytest.raises(DamagedDump, match="a list breaks off"):
        met.extend(entry.value_() for entry in list_for_each(head))
    assert met == whole[:21] + whole[41:]


def test_a_hash_list_gives_what_lies_before_its_break(broken: Broken) -> None:
    group = broken.prog["init_task"].signal.pids[2]         # PIDTYPE_PGID: that of all kernel threads
    head = group.tasks[2]
    whole = [node.value_() for node in hlist_for_each(head.address_of_())]
    broken.write_word(whole[1], whole[0])
    met: list[int] = []
    with pytest.raises(DamagedDump, match="circle"):
        met.extend(node.value_() for node in hlist_for_each(head.address_of_()))
    assert met == whole[:2]


def test_a_tree_loses_what_hangs_below_a_wrong_pointer(broken: Broken) -> None:
    root = broken.prog["vmap_area_root"].address_of_()
    whole = [node.value_() for node in rbtree_inorder_for_each(root)]
    child = root.rb_node.rb_left.rb_right
    broken.write_word(member(child), root.rb_node.value_())
    met: list[int] = []
    with pytest.raises(DamagedDump, match="says that it hangs below"):
        met.extend(node.value_() for node in rbtree_inorder_for_each(root))
    assert len(whole) // 2 < len(met) < len(whole)
    assert met == [node for node in whole if node in met]


def test_a_chain_is_followed_to_its_break(broken: Broken) -> None:
    first = irq_to_desc(broken.prog, 4).action
    broken.write_word(member(first.next), NOWHERE)
    met: list[int] = []
    with pytest.raises(DamagedDump, match="1 entry was read"):
        met.extend(action.value_() for action in chain(first, "next"))
    assert met == [first.value_()]
