"""rd, files, vtop as values: held against drgn's; what cannot be read is told."""

from __future__ import annotations

import drgn
import pytest
from drgn.helpers.linux.fs import address_space_for_each_page, for_each_file
from drgn.helpers.linux.mm import decode_page_flags, page_to_phys, phys_to_page, virt_to_page, virt_to_phys
from drgn.helpers.linux.pid import find_task
from drgn.helpers.linux.sched import cpu_rq
from drgn.helpers.linux.slab import find_containing_slab_cache

import lab
from brokendump import Broken
from console import Console, kernel_of


def test_rd_names_the_slab_objects_that_words_point_at(null: Console) -> None:
    task = find_task(null.prog, 1)
    rows = null.json(f"rd -S {task.value_():x} 400 --json")
    words = [word for row in rows for word in zip(row["values"], row["symbols"], row["caches"], strict=True)]
    assert len(words) == 400
    named = [word for word in words if word[2]]
    assert {"task_struct", "mm_struct", "signal_cache"} <= {cache for _, _, cache in named}
    for value, symbol, cache in named:
        assert symbol == ""
        assert find_containing_slab_cache(null.prog, value).name.string_().decode() == cache
    mm = task.mm.value_()
    at = task.mm.address_of_().value_()
    assert null(f"rd -S {at:x}").split() == [f"{at:016x}:", "[mm_struct]"]
    assert null(f"rd -SS {at:x}").split() == [f"{at:016x}:", f"[{mm:x}:mm_struct]"]


def test_rd_reads_backwards_and_in_network_order(null: Console) -> None:
    banner = null.prog.symbol("linux_banner").address
    data = null.prog.read(banner, 16)
    (row,) = null.json(f"rd -R {banner + 8:x} 2 --json")
    assert (row["address"], row["values"]) == (banner, [int.from_bytes(data[:8], "little"),
                                                        int.from_bytes(data[8:], "little")])
    (row,) = null.json(f"rd -8 -R {banner + 4:x} 5 --json")
    assert (row["address"], row["text"]) == (banner, "Linux")
    assert null(f"rd -a -R {banner + 4:x} 5") == f"{banner:016x}:  Linux\n"
    for bits in (16, 32, 64):
        (row,) = null.json(f"rd -N -{bits} {banner:x} {128 // bits} --json")
        assert b"".join(value.to_bytes(bits // 8, "big") for value in row["values"]) == data
    assert "-R goes up to" in null.fails(f"rd -R -e {banner:x} {banner:x}")
    assert "more than lies in front" in null.fails("rd -R 10 400")
    assert "words of 64 bits" in null.fails(f"rd -S -32 {banner:x}")


def test_rd_reads_what_crosses_pages_and_ends_where_a_page_is_missing(old: Console) -> None:
    banner = old.prog.symbol("linux_banner").address
    start = banner // 4096 * 4096 + 4096 - 40       # its lines cross the pages' borders
    data = old.prog.read(start, 3 * 4096)
    for bits in (8, 16, 32, 64):
        rows = old.json(f"rd -{bits} {start:x} {3 * 4096 * 8 // bits} --json")
        assert [row["address"] for row in rows] == list(range(start, start + len(data), 16))
        assert b"".join(value.to_bytes(bits // 8, "little") for row in rows for value in row["values"]) == data
        signed = old.json(f"rd -d -{bits} {start:x} 500 --json")
        assert b"".join(value.to_bytes(bits // 8, "little", signed=True) for row in signed
                        for value in row["values"]) == data[:500 * bits // 8]
    (row,) = old.json(f"rd -e {banner + 13:x} {banner:x} --json")
    assert row["values"] == [old.prog.read_u64(banner)]
    assert len(old.json(f"rd -e {banner + 24:x} {banner:x} --json")) == 2
    assert old.json(f"rd -e {banner + 3:x} {banner:x} --json") == [row]
    stack = find_task(old.prog, 1).stack.value_()
    good, text, errors = old.attempt(f"rd {stack + 0x4000 - 32:x} 8")        # the guard page is behind it
    assert not good
    assert len(text.splitlines()) == 2
    assert "no memory at" in errors


def test_rd_shows_the_memory_where_the_caches_cannot_be_told(broken: Broken) -> None:
    at = find_task(broken.prog, 1).mm.address_of_().value_()
    broken.write_word(broken.prog["slab_caches"].address_, 0xffffdead00000000)
    good, text, errors = broken.attempt(f"rd -S {at:x} 2")
    assert not good
    assert f"{broken.prog.read_u64(at):016x}" in text
    assert "the slab caches cannot be told" in errors


def test_files_c_d_p_tell_what_is_in_memory(null: Console) -> None:
    task = find_task(null.prog, 1)
    files = dict(for_each_file(task))
    (row,) = null.json("files -c 1 --json")
    assert [entry["fd"] for entry in row["files"]] == list(files)
    for entry in row["files"]:
        inode = files[entry["fd"]].f_inode
        assert entry["inode"] == inode.value_()
        assert (entry["mapping"], entry["pages"]) == (inode.i_mapping.value_(), inode.i_mapping.nrpages.value_())
    program = task.mm.exe_file
    assert null.json(f"files -d {program.f_path.dentry.value_():x} --json") == [{
        "dentry": program.f_path.dentry.value_(), "inode": program.f_inode.value_(),
        "superblock": program.f_inode.i_sb.value_(), "type": "REG", "path": "/bin/busybox"}]
    pages = null.json(f"files -p {program.f_inode.value_():x} --json")
    expected = dict(address_space_for_each_page(program.f_inode.i_mapping))
    assert len(pages) == len(expected) > 50
    for page, (index, found) in zip(pages, expected.items(), strict=True):
        assert (page["page"], page["index"]) == (found.value_(), index)
        assert page["physical"] == page_to_phys(found).value_()
        assert page["mapping"] == program.f_inode.i_mapping.value_()
        assert page["count"] == found._refcount.counter.value_()
        assert set(page["names"].split(",")) <= {name.removeprefix("PG_").lower()
                                                for name in decode_page_flags(found).split("|")}
    text = null(f"files -p {program.f_inode.value_():x}").splitlines()
    assert text[1].split() == [f"{program.f_inode.value_():016x}", str(program.f_inode.i_mapping.nrpages.value_())]
    assert len(text) == len(pages) + 4
    mapping = row["files"][-1]["mapping"]
    assert [entry["mapping"] for entry in null.json(f"files -c -R {mapping:x} 1 --json")[0]["files"]] == [mapping]
    assert null("foreach 1 files -c") == null("files -c 1")


def test_files_says_what_is_no_dentry_and_no_inode(null: Console) -> None:
    task = find_task(null.prog, 1).value_()
    for option in ("-d", "-p", "-n"):
        good, text, errors = null.attempt(f"files {option} {task:x}")
        assert not good
        assert text == ""
        assert "there is no " in errors or "no memory at" in errors
    assert "go with nothing else" in null.fails(f"files -c -d {task:x}")
    assert "go with nothing else" in null.fails(f"files -d {task:x} -p {task:x}")
    assert "go with nothing else" in null.fails(f"files -p {task:x} 1")


def test_files_p_ends_in_a_tree_that_runs_in_a_circle(broken: Broken) -> None:
    inode = find_task(broken.prog, 1).mm.exe_file.f_inode
    head = inode.i_mapping.i_pages.xa_head
    node = drgn.Object(broken.prog, "struct xa_node *", value=head.value_() - 2)
    broken.write_word(node.slots[3].address_of_().value_(), head.value_())
    good, _, errors = broken.attempt(f"files -p {inode.value_():x}")
    assert not good
    assert "leads back to a node" in errors
    broken.write_word(node.slots[3].address_of_().value_(), 0xffff800012345678)
    assert "no struct page" in broken.attempt(f"files -p {inode.value_():x}")[2]


@pytest.mark.parametrize("kernel", lab.KERNELS)
def test_vtop_shows_the_struct_page(kernel: str) -> None:
    console = Console(kernel_of(kernel, "null-workqueue"))
    task = find_task(console.prog, 1)
    (row,) = console.json(f"vtop {task.value_():x} --json")
    found = row["page_struct"]
    page = phys_to_page(console.prog, row["physical"])
    assert (found["page"], found["physical"]) == (page.value_(), row["physical"] & ~0xfff)
    assert found["count"] == page._refcount.counter.value_()
    text = console(f"vtop {task.value_():x}").splitlines()
    assert text[-2] == "      PAGE       PHYSICAL      MAPPING       INDEX CNT FLAGS"
    assert text[-1].split()[0] == f"{page.value_():016x}"
    (none,) = console.json("vtop ffff000000000000 --json")
    assert (none["physical"], none["page_struct"]) == (None, None)


def test_kmem_of_an_address_says_what_lies_there(null: Console) -> None:
    task = find_task(null.prog, 1)
    address = task.value_()
    (row,) = null.json(f"kmem {address + 16:x} --json")
    assert (row["cache"]["name"], row["task"]["pid"], row["area"], row["symbol"]) == ("task_struct", 1, None, None)
    assert [entry["address"] for slab in row["cache"]["details"] for entry in slab["objects"]] == [address]
    assert row["page"]["page"] == virt_to_page(null.prog, address + 16).value_()
    physical = virt_to_phys(null.prog, address).value_()
    assert null.json(f"kmem {physical:x} --json")[0]["cache"] == null.json(f"kmem -s {address:x} --json")[0]
    assert null.json(f"kmem -P {physical:x} --json") == null.json(f"kmem {physical:x} --json")
    text = null(f"kmem {address:x}")
    assert f"  [{address:016x}]\n\n    PID: 1\nCOMMAND: \"init\"\n" in text
    assert f"\n{row['page']['page']:016x} " in text

    stack = task.stack.value_()
    (row,) = null.json(f"kmem {stack + 4096:x} --json")
    assert (row["task"]["pid"], row["cache"]) == (1, None)
    assert row["area"]["start"] <= stack < row["area"]["end"]

    page = row["page"]
    (row,) = null.json(f"kmem {page['page']:x} --json")
    assert row == {**dict.fromkeys(("symbol", "cache", "task", "area")), "address": page["page"], "page": page,
                   "problem": ""}

    code = null.prog.symbol("flaky_poll_work").address
    (row,) = null.json(f"kmem {code + 4:x} --json")
    assert (row["symbol"]["name"], row["symbol"]["offset"], row["symbol"]["module"]) == ("flaky_poll_work", 4, "flaky")
    assert row["area"] is not None
    assert null("kmem init_task").splitlines()[2] == "    PID: 0"
    assert [entry["address"] for entry in null.json(f"kmem {address:x} {code:x} --json")] == [address, code]
    for nothing in ("ffff000000000000", "7fff00000000", f"{(1 << 64) - 1:x}"):
        assert "nothing is known" in null.fails(f"kmem {nothing}")


def test_kmem_of_an_address_tells_the_rest_where_the_slabs_are_lost(broken: Broken) -> None:
    address = find_task(broken.prog, 1).value_()
    broken.write_word(broken.prog["slab_caches"].address_, 0xffffdead00000000)
    (row,) = broken.json(f"kmem {address:x} --json")
    assert row["cache"] is None
    assert row["page"] is not None
    assert "the slab cache: " in row["problem"]
    assert "(the slab cache: " in broken(f"kmem {address:x}")


@pytest.mark.parametrize("line", ["runq", "runq -g"])
def test_runq_shows_the_other_cpus(broken: Broken, line: str) -> None:
    whole = broken(line).split("\n\n")
    broken.write_word(cpu_rq(broken.prog, 0).curr.address_of_().value_(), 0xffffdead00000000)
    good, text, errors = broken.attempt(line)
    assert not good
    assert "CPU 0: no memory at" in errors
    assert text == whole[1]


@pytest.mark.skipif(not lab.FULL, reason="dumps of arm64: KDUMPY_MATRIX=full")
@pytest.mark.parametrize("kernel", lab.ARM64_KERNELS)
def test_they_answer_on_arm64(kernel: str) -> None:
    """Debian's 6.1 has no symbols of variables there: what drgn's commands wanted is found another way."""
    console = Console(kernel_of(kernel, "null-workqueue"))
    task = find_task(console.prog, 1)
    size = console.prog["PAGE_SIZE"].value_()
    rows = console.json("kmem -n --json")
    assert {row["kind"] for row in rows} == {"node", "section", "block"}
    sections = {row["section"] for row in rows if row["kind"] == "section"}
    blocks = [row for row in rows if row["kind"] == "block"]
    assert {row["section"] for row in blocks} <= sections
    assert sum(row["end"] + 1 - row["start"] for row in blocks) == \
        len(sections) << console.prog["SECTION_SIZE_BITS"].value_()
    assert console(f"rd -S {task.mm.address_of_().value_():x}").endswith("[mm_struct]\n")
    (row,) = console.json(f"kmem {task.value_():x} --json")
    assert (row["cache"]["name"], row["task"]["pid"]) == ("task_struct", 1)
    (row,) = console.json(f"vtop {task.value_():x} --json")
    assert row["page_struct"]["physical"] == row["physical"] // size * size
    assert any("fork" in row["caller"] or "dup_task_struct" in row["caller"] or "kernel_clone" in row["caller"]
               for row in console.json("kmem -v --json"))
    for line in ("kmem -V", "kmem -z", "kmem -h", "kmem -o", "kmem -g", "runq -g", "net -a", "files -c 1",
                 "ptov 41000000:0", "btop 41000fff"):
        assert console.json(f"{line} --json"), line
