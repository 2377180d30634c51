"""kmem and search on real dumps: numbers held against drgn's and the kernel's own counters; damage named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from drgn.helpers.linux.mm import for_each_page, page_to_phys, totalram_pages
from drgn.helpers.linux.pid import find_task
from drgn.helpers.linux.slab import for_each_slab_cache

from brokendump import Broken
from console import Console
from kdumpy.crash.memory import finding
from kdumpy.crash.memory.arrays import Arrays
from kdumpy.crash.memory.pages import StructPages
from kdumpy.crash.memory.slabvalues import Cache
from kdumpy.errors import DamagedDump


def test_kmem_p_has_every_page_as_drgn_reads_it(null: Console) -> None:
    rows = null.json("kmem -p --json")
    assert len(rows) >= totalram_pages(null.prog)
    by_page = {row["page"]: row for row in rows}
    assert len(by_page) == len(rows)
    for number, page in enumerate(for_each_page(null.prog)):
        if number % 4001:
            continue
        row = by_page[page.value_()]
        assert row["physical"] == page_to_phys(page).value_()
        assert row["mapping"] == page.mapping.value_()
        assert row["count"] == page._refcount.counter.value_()
    one = rows[1234]
    for text in (f"{one['page']:x}", f"{one['physical']:x}", f"-P {one['physical']:x}"):
        assert null.json(f"kmem -p {text} --json") == [one]
    (members,) = null.json(f"kmem -m lru.next,_refcount {one['page']:x} --json")
    assert int(members["members"]["_refcount"]) == one["count"]
    assert int(members["members"]["lru.next"], 16) == null.prog.read_u64(one["page"] + 8)


def test_kmem_s_counts_what_the_caches_count(null: Console) -> None:
    rows = {row["name"]: row for row in null.json("kmem -s --json")}
    assert len(rows) > 100
    assert set(rows) == {cache.name.string_().decode() for cache in for_each_slab_cache(null.prog)}
    assert [row["problems"] for row in rows.values() if row["problems"]] == []      # the nodes' own counts too
    assert all(row["allocated"] <= row["total"] for row in rows.values())
    tasks = {row["task"] for row in null.json("ps --json") if row["pid"]}
    objects = {entry["address"] for slab in null.json("kmem -S task_struct --json")[0]["details"]
               for entry in slab["objects"] if not entry["free"]}
    assert tasks <= objects
    (found,) = null.json(f"kmem -s {min(tasks) + 16:x} --json")
    assert found["name"] == "task_struct"
    assert [entry["address"] for slab in found["details"] for entry in slab["objects"]] == [min(tasks)]
    assert "no slab cache" in null.fails("kmem -s nothing")
    assert "task_struct" not in {row["name"] for row in null.json("kmem -s -I task_struct,dentry --json")}


def free_pair(console: Broken) -> tuple[Cache, int, int]:
    """Return a cache and a slab's first two free objects."""
    slabs = console.shell.session.slabs
    for cache in slabs.caches:
        heads = slabs.heads
        for row in heads.of(cache.address).tolist():
            first = int(heads.freelist[row])
            if not first or heads.objects[row] - heads.inuse[row] < 2:
                continue
            at = first + cache.offset
            second = console.prog.read_u64(at) ^ (cache.random or 0)
            if cache.random is not None:
                second ^= int.from_bytes(at.to_bytes(8, "little"), "big")
            console.shell.session.__dict__.pop("slabs")     # what follows reads anew
            return cache, first, second
    raise AssertionError("no slab has two free objects")


def encoded(cache: Cache, at: int, pointer: int) -> int:
    """Return a pointer to a free object as SLUB stores it at an address."""
    if cache.random is None:
        return pointer
    return pointer ^ cache.random ^ int.from_bytes(at.to_bytes(8, "little"), "big")


def test_kmem_s_names_a_list_of_free_objects_that_leads_away(broken: Broken) -> None:
    cache, first, _ = free_pair(broken)
    broken.write_word(first + cache.offset, 0x4141414141414141)        # a use after free
    (row,) = broken.json(f"kmem -s {cache.name} --json")
    assert any("none of its objects" in problem and f"{first:016x}" in problem for problem in row["problems"])
    assert f"[CORRUPT] {cache.name}: slab" in broken("kmem -s")
    assert broken("sys")        # the session lives


def test_kmem_s_names_a_list_of_free_objects_that_runs_in_a_circle(broken: Broken) -> None:
    cache, first, second = free_pair(broken)
    at = second + cache.offset
    broken.write_word(at, encoded(cache, at, first))                    # a double free
    (row,) = broken.json(f"kmem -s {cache.name} --json")
    assert any("runs in a circle" in problem for problem in row["problems"]), row["problems"]


def test_kmem_f_says_where_a_list_of_free_pages_breaks(broken: Broken) -> None:
    row = next(row for row in broken.json("kmem -F --json") if row["blocks"] > 2 and row["cpu"] is None)
    base, size = int(broken.prog["vmemmap"]), broken.prog.type("struct page").size
    second = base + row["physical"][1] // 4096 * size + 8
    broken.write_word(second, 0xdead000000000100)                       # LIST_POISON1
    good, text, errors = broken.attempt("kmem -f")
    assert not good
    assert "[CORRUPT] the list leads to dead000000000100, which is no page, after 2 blocks" in text
    assert "do not fit the counters" in errors
    broken.write_word(second, base + row["physical"][0] // 4096 * size + 8)
    assert "[CORRUPT] the list runs in a circle" in broken.attempt("kmem -f")[1]


def test_kmem_f_agrees_with_the_zones(null: Console) -> None:
    rows = null.json("kmem -f --json")
    assert [row["problem"] for row in rows if row["problem"]] == []
    free = sum(row["pages"] for row in rows if row["cpu"] is None)
    counted = next(row["pages"] for row in null.json("kmem -i --json") if row["name"] == "FREE")
    assert abs(free - counted) <= 2 * 125       # CPUs add what they took to the counter only at times
    assert any(row["cpu"] is not None and row["pages"] for row in rows)
    full = [row for row in null.json("kmem -F --json") if row["blocks"]]
    assert all(len(row["physical"]) == row["blocks"] for row in full)
    some = full[0]
    assert null.json(f"kmem -f {some['physical'][0]:x} --json")[0]["head"] == some["head"]


def test_kmem_c_counts_the_page_cache_of_each_file(null: Console) -> None:
    rows = null.json("kmem -c --json")
    assert any("busybox" in row["path"] for row in rows)
    assert [row for row in rows if row["pages"] != row["counted"]][:3] == []


def test_search_finds_every_stack_by_its_guard(null: Console) -> None:
    stacks = {row["address"] for row in null.json("search -t 57ac6e9d --json")}
    bases = {find_task(null.prog, row["pid"]).stack.value_() for row in null.json("ps --json") if row["pid"]}
    bases.discard(0)            # of a zombie
    assert bases <= stacks
    assert bases <= {row["address"] for row in null.json("search -V 57ac6e9d --json")} | \
        {row["address"] for row in null.json("search -K 57ac6e9d --json")}


def test_search_finds_values_of_each_width_masked_and_not(null: Console) -> None:
    task = find_task(null.prog, 1)
    at, size = task.value_(), task.type_.type.size
    data = np.frombuffer(null.prog.read(at, size), np.uint8)
    where = f"-s {at:x} -l {size}"
    for option, kind in (("", "<u8"), ("-w", "<u4"), ("-h", "<u2")):
        words = data[:size // 8 * 8].view(kind)
        value = int(words[np.flatnonzero(words)[0]])
        expected = [at + place * words.itemsize for place in np.flatnonzero(words == value).tolist()]
        assert [row["address"] for row in null.json(f"search {option} {where} {value:x} --json")] == expected
    words = data[:size // 8 * 8].view("<u8")
    masked = null.json(f"search {where} -m ffffffff {at:x} --json")
    assert [row["address"] for row in masked] == \
        [at + 8 * place for place in np.flatnonzero(words >> 32 == at >> 32).tolist()]
    (name,) = null.json(f"search -c {where} init --json")[:1]
    assert name["address"] == task.comm.address_
    first = null.json(f"search {where} -x 2 {at:x} --json")[0] if at in words else None
    assert first is None or len(first["after"]) == 2


def test_search_finds_each_place_once_whatever_maps_its_page(null: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without a hit in the direct map are not read again where vmalloc or the image maps them, too."""
    value = null.prog["init_task"].address_
    found = [row["address"] for row in null.json(f"search {value:x} --json")]
    assert found == sorted(set(found))
    assert [address for address in found if null.prog.read_u64(address) != value] == []
    direct = [address for address in found if null.shell.session.arrays.is_direct(address, address + 8)]
    assert 0 < len(direct) < len(found)
    # What stands around a hit is wanted of the neighbours, so that all pages are read.
    assert [row["address"] for row in null.json(f"search -x 1 {value:x} --json")] == found
    monkeypatch.setattr(finding, "_MOST_SEEN", 0)
    assert [row["address"] for row in null.json(f"search {value:x} --json")] == found


def test_memory_that_is_damaged_in_the_file_is_told_as_lost(broken: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = broken.shell.session.arrays
    pages = StructPages(broken.prog, arrays)
    whole = next(pages.walk())
    physical = int(arrays.physical(np.array([whole.address], np.uint64))[0])
    dump: Any = broken.kernel.dump
    read = dump.read_pages

    def read_pages(pfns: Any, missing: Any = "raise") -> Any:
        if physical // 4096 + 1 in np.asarray(pfns):
            raise DamagedDump("this page is damaged")
        return read(pfns, missing)

    monkeypatch.setattr(dump, "read_pages", read_pages)
    found = next(pages.walk())
    (first, *_, last) = np.flatnonzero(whole.held & ~found.held).tolist()
    assert (first, last) == (4096 // pages.size, -(-8192 // pages.size) - 1)
    assert np.array_equal(found.raw[found.held], whole.raw[found.held])
    assert [str(error) for error in arrays.damaged] == ["this page is damaged"]


def test_search_of_symbols_says_which(old: Console) -> None:
    rows = old.json("search -k flaky_poll_work --json")
    assert rows
    assert {row["wanted"] for row in rows} == {"flaky_poll_work"}
    symbol = old.prog.symbol("flaky_poll_work").address
    assert all(old.prog.read_u64(row["address"]) == symbol for row in rows)
    physical = {row["address"] for row in old.json(f"search -p {symbol:x} --json")}
    assert {row["address"] - old.shell.session.arrays.direct for row in rows
            if row["address"] < 0xffffffff80000000 and row["address"] - old.shell.session.arrays.direct < 1 << 40} \
        <= physical
    assert "(flaky_poll_work)" in old("search -k flaky_poll_work")


def test_search_refuses_what_makes_no_sense(old: Console) -> None:
    for line, why in (("search -k -u 1", "one kind"), ("search -h 12345", "16 bits"), ("search -s 1001 2", "aligned"),
                      ("search -s ffff888000000000 -e ffff000000000000 2", "before the begin"),
                      ("search nothing_of_that_name", "neither a symbol")):
        assert why in old.fails(line)


def test_going_through_memory_is_a_sign_of_life(null: Console) -> None:
    """A search of a terabyte takes longer than the clock of commands gives for silence."""
    signs: list[int] = []
    arrays = Arrays(null.prog, null.shell.session.kernel.dump, lambda: signs.append(1))
    walked = sum(1 for _ in arrays.walk_physical(0, 1 << 52))
    assert len(signs) == walked > 1
    signs.clear()
    pages = sum(len(found.held) for found in StructPages(null.prog, arrays).walk())
    assert len(signs) >= pages // 32768 > 0
    assert null.shell.session.arrays.alive == null.shell.session.deadline.alive
