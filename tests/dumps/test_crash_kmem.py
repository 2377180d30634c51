"""kmem's views of areas, counters, zones, nodes, huge pages and flags: held against drgn's; damage named."""

from __future__ import annotations

import drgn
import pytest
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.hugetlb import for_each_hstate, huge_page_size
from drgn.helpers.linux.mm import (
    decode_page_flags_value,
    for_each_memory_block,
    for_each_vmap_area,
    page_to_pfn,
    phys_to_virt,
    virt_to_page,
)
from drgn.helpers.linux.mmzone import (
    for_each_online_pgdat,
    for_each_present_section,
    high_wmark_pages,
    min_wmark_pages,
    section_decode_mem_map,
)
from drgn.helpers.linux.percpu import per_cpu_ptr
from drgn.helpers.linux.vmstat import global_node_page_state, global_vm_event_state, zone_page_state

from brokendump import Broken
from console import Console


def test_kmem_v_lists_every_area_by_address(null: Console) -> None:
    rows = null.json("kmem -v --json")
    areas = {area.value_(): area for area in for_each_vmap_area(null.prog)}
    assert [row["start"] for row in rows] == sorted(area.va_start.value_() for area in areas.values())
    assert {row["area"] for row in rows} == set(areas)
    for row in rows:
        area = areas[row["area"]]
        assert (row["vm"], row["end"]) == (area.vm.value_(), area.va_end.value_())
        assert row["bytes"] == row["end"] - row["start"]
        if row["vm"]:
            assert row["pages"] == area.vm.nr_pages.value_()
    callers = " ".join(row["caller"] for row in rows)
    assert "dup_task_struct" in callers or "kernel_clone" in callers        # stacks
    assert any(name in callers for name in ("load_module", "module_alloc", "execmem_alloc", "move_module"))
    one = rows[len(rows) // 2]
    assert null.json(f"kmem -v {one['start'] + 8:x} --json") == [one]
    physical = next(row for row in null.json("vtop " + f"{one['start']:x}" + " --json"))["physical"]
    if physical is not None:
        assert one in null.json(f"kmem -v {physical:x} --json")
    assert "in no area" in null.fails("kmem -v ffffffffffffff00")


@pytest.mark.parametrize(("damage", "words"), [("circle", "runs in a circle"), ("lost", "not in the dump"),
                                               ("ends", "is no area")])
def test_kmem_v_says_where_the_list_breaks_and_shows_what_lies_on_both_sides(
        broken: Broken, damage: str, words: str) -> None:
    whole = broken.json("kmem -v --json")
    third = drgn.Object(broken.prog, "struct vmap_area *", value=whole[2]["area"])
    if damage == "ends":
        broken.write_word(third.va_end.address_of_().value_(), whole[2]["start"] - 4096)
    else:
        broken.write_word(third.list.next.address_of_().value_(), third.list.prev.value_() if damage == "circle"
                          else 0xffffdead00000000)
    good, text, errors = broken.attempt("kmem -v")
    assert not good
    assert words in errors
    # The list leads backwards too; an area that is none is left out.
    shown = [row for row in whole if damage != "ends" or row is not whole[2]]
    assert [line.split()[0] for line in text.splitlines()[1:]] == [f"{row['area']:016x}" for row in shown]


def test_kmem_v_shows_what_can_be_reached_of_a_list_that_is_torn_twice(broken: Broken) -> None:
    whole = broken.json("kmem -v --json")
    for place, member in ((4, "next"), (-5, "prev")):
        area = drgn.Object(broken.prog, "struct vmap_area *", value=whole[place]["area"])
        broken.write_word(area.list.member_(member).address_of_().value_(), 0xffffdead00000000)
    good, text, errors = broken.attempt("kmem -v")
    assert not good
    assert "not in the dump" in errors
    assert [line.split()[0] for line in text.splitlines()[1:]] == [
        f"{row['area']:016x}" for row in (*whole[:5], *whole[-5:])]


def test_kmem_counts_as_the_kernel_does(null: Console) -> None:
    rows = {(row["group"], row["name"]): row["value"] for row in null.json("kmem -V --json")}
    groups = {group for group, _ in rows}
    numa = "VM_NUMA_STAT" if "vm_numa_stat" in null.prog else "VM_NUMA_EVENT"       # renamed in 5.14
    assert groups == {"VM_ZONE_STAT", "VM_NODE_STAT", "VM_EVENT_STATES", numa}
    for name, item in null.prog.type("enum node_stat_item").enumerators or ():
        if ("VM_NODE_STAT", name) in rows:
            assert max(rows["VM_NODE_STAT", name], 0) == global_node_page_state(null.prog, item)
    for name in ("PGFAULT", "PGALLOC_DMA32", "PGFREE"):
        assert rows["VM_EVENT_STATES", name] == global_vm_event_state(null.prog, null.prog.constant(name)) > 0
    # Pages that were allocated by a node's own CPU: nearly all of this guest's.
    assert rows[numa, "NUMA_HIT"] == rows[numa, "NUMA_LOCAL"] > 5000
    zones = null.json("kmem -z --json")
    found = [(node.node_id.value_(), number, zone.address_of_()) for node in for_each_online_pgdat(null.prog)
             for number, zone in enumerate(node.node_zones)]
    assert [(row["node"], row["zone"], row["address"]) for row in zones] == [
        (node, number, zone.value_()) for node, number, zone in found]
    for row, (_, _, zone) in zip(zones, found, strict=True):
        assert row["spanned"] == zone.spanned_pages.value_()
        if row["spanned"]:
            assert row["minimum"] + row["boost"] == min_wmark_pages(zone)
            assert row["high"] + row["boost"] == high_wmark_pages(zone)
            free = null.prog["NR_FREE_PAGES"].value_()
            assert row["counters"]["NR_FREE_PAGES"] == zone_page_state(zone, free)
            assert row["managed"] <= row["present"] <= row["spanned"]
    assert sum(row["counters"].get("NR_FREE_PAGES", 0) for row in zones) == rows["VM_ZONE_STAT", "NR_FREE_PAGES"]


def test_kmem_n_says_where_nodes_sections_and_blocks_lie(null: Console) -> None:
    rows = null.json("kmem -n --json")
    nodes, sections, blocks = ([row for row in rows if row["kind"] == kind] for kind in ("node", "section", "block"))
    assert nodes[0]["mem_map"] == virt_to_page(null.prog, phys_to_virt(null.prog, nodes[0]["physical"])).value_()
    assert [zone["name"] for zone in nodes[0]["zones"]][:2] == ["DMA", "DMA32"]
    expected = dict(for_each_present_section(null.prog))
    assert [row["section"] for row in sections] == list(expected)
    for row in sections:
        assert row["address"] == expected[row["section"]].value_()
        mem_map = section_decode_mem_map(expected[row["section"]], row["section"])
        assert (row["mem_map"], row["first_page"]) == (mem_map.value_(), page_to_pfn(mem_map).value_())
        assert row["state"] == "PMOE"
    assert [row["address"] for row in blocks] == [block.value_() for block in for_each_memory_block(null.prog)]
    assert {row["state"] for row in blocks} == {"ONLINE"}
    assert sorted(row["start"] for row in blocks)[0] == 0


def test_kmem_n_shows_what_it_can_of_damaged_nodes(broken: Broken) -> None:
    broken.write_word(broken.prog["mem_section"].read_().value_(), 0xffffdead00000000)
    good, text, errors = broken.attempt("kmem -n")
    assert not good
    assert "sections: " in errors
    assert "DMA32" in text
    assert "(not known)" in text    # where the struct pages lie
    assert "memory0" in text        # the blocks, which stand behind


def test_kmem_n_finds_the_sections_where_their_number_is_lost(broken: Broken) -> None:
    whole = broken("kmem -n")
    broken.write_word(broken.prog["__highest_present_section_nr"].address_, 1 << 60)
    assert broken("kmem -n") == whole


def test_kmem_h_o_g_tell_pools_offsets_and_flags(null: Console) -> None:
    assert [(row["hstate"], row["size"], row["free"], row["total"]) for row in null.json("kmem -h --json")] == [
        (state.value_(), huge_page_size(state).value_(), state.free_huge_pages.value_(), state.nr_huge_pages.value_())
        for state in for_each_hstate(null.prog)]
    nothing = drgn.NULL(null.prog, "void *")
    assert {row["cpu"]: row["offset"] for row in null.json("kmem -o --json")} == {
        cpu: per_cpu_ptr(nothing, cpu).value_() for cpu in for_each_possible_cpu(null.prog)}
    flags = null.json("kmem -g --json")
    assert {row["name"]: row["bit"] for row in flags}["PG_locked"] == 0
    wanted = flags[3]["value"] | flags[5]["value"]
    assert {row["name"] for row in null.json(f"kmem -g {wanted:x} --json")} == set(
        decode_page_flags_value(null.prog, wanted).split("|")) | {
        row["name"] for row in flags if row["value"] & wanted}
    assert "no flag is set" in null.fails("kmem -g 8000000000000000")
    assert "no hexadecimal" in null.fails("kmem -g xyz")
    assert "takes no address" in null.fails("kmem -z 1000")
    assert "one option at a time" in null.fails("kmem -z -v")
