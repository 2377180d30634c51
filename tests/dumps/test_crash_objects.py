"""`ipcs`, `bpf`, `sig` on a guest whose process holds such things; crash 8.0.2 says the same where it is there."""

from __future__ import annotations

from collections.abc import Iterator

import drgn
import pytest

import kdumpy
import secret_guest
from brokendump import Broken
from console import Console
from crashtruth import Truth, release_of, vmlinux, words

SAME = ("ipcs", "ipcs -M", "bpf", "bpf -P -t", "bpf -P -T")
SHORT = ("net -a",)


@pytest.fixture(scope="module")
def guest() -> Iterator[Console]:
    with kdumpy.open(secret_guest.dump("6.1").path) as kernel:
        yield Console(kernel)


def test_ipcs_shows_what_the_process_made(guest: Console) -> None:
    memory, semaphores, queue = guest.json("ipcs --json")
    assert (memory["kind"], memory["key"], memory["mode"], memory["bytes"], memory["attached"]) == (
        "shm", 0x5eed, 0o640, 90000, 1)
    assert (memory["pages_allocated"], memory["pages_resident"], memory["pages_swapped"]) == (22, 3, 0)
    assert (semaphores["key"], semaphores["mode"], semaphores["semaphores"]) == (0x5e3a, 0o666, 3)
    assert (queue["key"], queue["used_bytes"], queue["messages"]) == (0x9e0e, 26, 2)
    assert guest.json(f"ipcs -q {queue['address']:x} --json") == [queue]
    assert guest.json("ipcs -n 1 -s --json") == [semaphores]
    assert "nothing of the id" in guest.fails("ipcs 12345")


def test_bpf_shows_the_program_its_code_and_its_map(guest: Console) -> None:
    (program,) = guest.json("bpf -P -T --json")
    (table,) = guest.json("bpf -M --json")
    assert (program["type"], program["name"], program["gpl"]) == ("SOCKET_FILTER", "count_packets", True)
    assert program["maps"] == [table["id"]]
    assert (table["type"], table["key_bytes"], table["value_bytes"], table["entries"], table["name"]) == (
        "ARRAY", 4, 8, 5, "counters")
    code = [one["text"] for one in program["code"]]
    assert code[0] == "(bf) r6 = r1"
    assert f"(18) r1 = map[id:{table['id']}]" in code
    assert code[-1] == "(95) exit"
    assert sum(len(one["bytes"]) for one in program["code"]) // 2 == program["code_bytes"]
    panicked = guest.kernel.system.panic_time
    assert panicked is not None
    assert panicked - 120 < program["loaded"] < panicked
    (compiled,) = guest.json(f"bpf -p {program['id']} -j --json")
    assert compiled["machine"][-1]["address"] < compiled["machine"][0]["address"] + program["jited_bytes"]
    assert any(one["text"].startswith("lock add") for one in compiled["machine"])
    assert "struct bpf_prog_aux {" in guest("bpf -P -s")
    assert "no eBPF program 99" in guest.fails("bpf -p 99")
    assert "go with -p ID or -P" in guest.fails("bpf -t")


def test_sig_shows_the_signals_that_wait(guest: Console) -> None:
    (pid,) = (row["pid"] for row in guest.json("ps holdobjects --json"))
    (row,) = guest.json(f"sig {pid} --json")
    assert row["blocked"] == 1 << 9 | 1 << 36         # SIGUSR1, and SIGRTMIN+3 of the C library: 37
    assert [one["number"] for one in row["private"]["queued"] + row["shared"]["queued"]] == [10, 37, 37]
    assert "SIGPENDING: no" in guest(f"sig {pid}")     # they are blocked
    (group,) = guest.json(f"sig -g {pid} --json")
    assert [one["thread"]["pid"] for one in group["group"]] == [pid]


@pytest.fixture(scope="module")
def crash() -> Truth:
    import shutil

    path = secret_guest.dump("6.1").path
    debug = vmlinux(release_of(path))
    if debug is None or not shutil.which("crash"):
        pytest.skip("crash or the kernel's DWARF is not there")
    return Truth(path, debug, (*SAME, *SHORT))


@pytest.mark.parametrize("line", SAME)
def test_the_answer_is_that_of_crash(crash: Truth, guest: Console, line: str) -> None:
    # crash reckons the time of loading from its own clock; its maps' memory is gone from kernels since 5.11.
    expected, found = ([text for text in words(lines) if not text.startswith("LOAD_TIME")]
                       for lines in (crash(line), guest(line).splitlines()))
    assert len(expected) > 3
    assert found == expected


def test_net_a_is_that_of_crash_and_has_the_state_as_a_value(crash: Truth, guest: Console) -> None:
    # crash has no neighbours of IPv6.
    found = words(guest("net -a").splitlines())
    assert [line for line in found if "::" not in line] == words(crash("net -a"))
    rows = {row["address"]: row for row in guest.json("net -a --json")}
    assert (rows["0.0.0.0"]["device"], rows["0.0.0.0"]["state"]) == ("lo", ["NOARP"])
    assert rows["ff02::2"]["hardware_address"] == "33:33:00:00:00:02"


def test_a_neighbour_that_leads_to_itself_is_told() -> None:
    console = Broken(secret_guest.dump("6.1").path)
    row = next(row for row in console.json("net -a --json") if row["device"] == "lo")
    place = drgn.Object(console.prog, "struct neighbour *", value=row["neighbour"]).next.address_of_().value_()
    console.write_word(place, row["neighbour"])
    good, text, errors = console.attempt("net -a")
    assert not good
    assert f"{row['neighbour']:016x}" in text
    assert "runs in a circle" in errors
    console.write_word(place, 0xffffdead00000000)
    assert "not all neighbours can be read: arp_tbl, ffffdead00000000" in console.attempt("net -a")[2]
    console.close()
