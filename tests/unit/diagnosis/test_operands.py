"""The faulting instruction's operands."""

from __future__ import annotations

import pytest

from kdumpy.diagnosis import operands

BASE = 0x1000
# mov rax, [rdi+0x80]; mov ecx, [rsi+0x18]; mov edx, [rax]
CODE = bytes.fromhex("488b8780000000" "8b4e18" "8b10")
FAULT = BASE + 10


def reader(code: bytes) -> operands.Read:
    def read(address: int, size: int) -> bytes:
        if BASE <= address < BASE + len(code):
            return code[address - BASE:][:size]
        raise LookupError(hex(address))
    return read


def test_the_address_is_reckoned_from_the_registers() -> None:
    found = operands.decode(reader(CODE), FAULT, {"rax": 0x10})
    assert found is not None
    assert found.text == "movl (%rax), %edx"
    (operand,) = found.operands
    assert (operand.base, operand.address, operand.size, operand.access) == ("rax", 0x10, 4, "read")


def test_a_write_with_index_and_displacement() -> None:
    # mov qword ptr [rax+rbx*8+0x20], 0
    found = operands.decode(reader(bytes.fromhex("48c744d82000000000")), BASE, {"rax": 0x100, "rbx": 2})
    assert found is not None
    (operand,) = found.operands
    assert (operand.address, operand.access, operand.index) == (0x130, "write", "rbx")


@pytest.mark.parametrize(("code", "access"), [
    ("f00fb117", "read and write"), ("0fb117", "read and write"),       # lock cmpxchgl %edx, (%rdi)
    ("f0480fc107", "read and write"), ("8707", "read and write"),       # lock xaddq %rax, (%rdi); xchgl %eax, (%rdi)
    ("f0ff0f", "read and write"), ("8b07", "read"), ("3907", "read"),   # lock decl; movl; cmpl
])
def test_an_exchange_reads_and_writes(code: str, access: str) -> None:
    found = operands.decode(reader(bytes.fromhex(code)), BASE, {"rdi": 0x18})
    assert found is not None
    assert [operand.access for operand in found.operands] == [access]


def test_an_unknown_register_gives_no_operand() -> None:
    found = operands.decode(reader(CODE), FAULT, {})
    assert found is not None
    assert found.operands == ()


def test_code_that_is_not_there() -> None:
    assert operands.decode(reader(b""), BASE, {}) is None


def test_the_call_before_a_return_address() -> None:
    found = operands.decode_call(reader(bytes.fromhex("90" "ffd0")), BASE + 3, {})      # nop; call rax
    assert found is not None
    assert found.target == "rax"
    assert operands.decode_call(reader(bytes.fromhex("909090909090909090")), BASE + 9, {}) is None


def test_how_far_a_call_goes_is_not_taken_for_an_instruction() -> None:
    # eb de, its last two bytes, would be a short jump, and ff d0 a call through a register.
    for far in ("c12eebde", "c12effd0"):
        found = operands.decode_call(reader(bytes.fromhex("4c89e7" "e8" + far)), BASE + 8, {})
        assert found is not None
        assert (found.address, found.size, found.text.split()[0]) == (BASE + 3, 5, "callq")


def test_a_string_store_writes() -> None:
    found = operands.decode(reader(bytes.fromhex("f348ab")), BASE, {"rdi": 0x5000, "rax": 0, "rcx": 1})
    assert found is not None
    assert found.operands[0].access == "write"


ARM64 = {"x0": 0x1000, "x1": 0x2000, "x2": 0xFFFF000000000010, "x29": 0x5000, "sp": 0x6000, "x3": 0xFFFFFFFF}


@pytest.mark.parametrize(("word", "text", "address", "size", "access"), [
    (0xB9400003, "[x0]", 0x1000, 4, "read"),                            # ldr w3, [x0]
    (0xF9000841, "[x2, #0x10]", 0xFFFF000000000020, 8, "write"),        # str x1, [x2, #16]
    (0xA9420440, "[x2, #0x20]", 0xFFFF000000000030, 16, "read"),        # ldp x0, x1, [x2, #32]
    (0xF8408420, "[x1], #8", 0x2000, 8, "read"),                        # ldr x0, [x1], #8
    (0xF8408C20, "[x1, #8]!", 0x2008, 8, "read"),                       # ldr x0, [x1, #8]!
    (0xF85F8020, "[x1, #-8]", 0x1FF8, 8, "read"),                       # ldur x0, [x1, #-8]
    (0xF8635820, "[x1, w3, uxtw #3]", 0x2000 + 8 * 0xFFFFFFFF, 8, "read"),
    (0xF863D820, "[x1, w3, sxtw #3]", 0x2000 - 8, 8, "read"),
    (0x38606820, "[x1, x0]", 0x3000, 1, "read"),                        # ldrb w0, [x1, x0]
    (0x79000020, "[x1]", 0x2000, 2, "write"),                           # strh w0, [x1]
    (0xF8200041, "[x2]", 0xFFFF000000000010, 8, "read and write"),      # ldadd x0, x1, [x2]
    (0x889FFC20, "[x1]", 0x2000, 4, "write"),                           # stlr w0, [x1]
    (0xF94007E0, "[sp, #8]", 0x6008, 8, "read"),                        # ldr x0, [sp, #8]
    (0xF94007A0, "[x29, #8]", 0x5008, 8, "read"),                       # ldr x0, [x29, #8]
    (0x3DC00020, "[x1]", 0x2000, 16, "read")])                          # ldr q0, [x1]
def test_a_load_or_store_of_arm64(word: int, text: str, address: int, size: int, access: str) -> None:
    found = operands.decode(reader(word.to_bytes(4, "little")), 0x1000, ARM64, "aarch64")
    assert found is not None
    (operand,) = found.operands
    assert (operand.text, operand.address, operand.size, operand.access) == (text, address % (1 << 64), size, access)


def test_what_is_no_load_or_store_of_arm64_has_no_operand() -> None:
    for word in (0xD503201F, 0x91048001, 0xD4210000):           # nop; add x1, x0, #0x120; brk #0x800
        found = operands.decode(reader(word.to_bytes(4, "little")), 0x1000, ARM64, "aarch64")
        assert found is not None
        assert found.operands == ()
    unknown = operands.decode(reader((0xF94007E0).to_bytes(4, "little")), 0x1000, {}, "aarch64")
    assert unknown is not None
    assert unknown.operands == ()


def test_the_call_before_a_return_address_of_arm64() -> None:
    read = reader((0xD63F0020).to_bytes(4, "little"))           # blr x1
    found = operands.decode_call(read, 0x1004, ARM64, "aarch64")
    assert found is not None
    assert (found.text, found.target) == ("blr x1", "x1")
    assert operands.decode_call(reader((0xD503201F).to_bytes(4, "little")), 0x1004, ARM64, "aarch64") is None


@pytest.mark.parametrize(("code", "text"), [
    ("48c7472020164cc0", "movq $0xffffffffc04c1620, 0x20(%rdi)"),       # an address of a module: 64 bits, negative
    ("48c7c7ffffffff", "movq $0xffffffffffffffff, %rdi"),
    ("48c7472001000000", "movq $1, 0x20(%rdi)"),
    ("4883c4f8", "addq $-8, %rsp"),
])
def test_long_numbers_are_in_hexadecimal(code: str, text: str) -> None:
    found = operands.decode(reader(bytes.fromhex(code)), 0x1000, {})
    assert found is not None
    assert found.text == text


def test_a_per_cpu_pointer_is_what_the_base_of_the_cpu_is_added_to() -> None:
    # incq %gs:0x10(%rax): where that leads to, the registers do not say
    found = operands.decode(reader(bytes.fromhex("6548ff4010")), BASE, {"rax": 0x6B6B6B6B6B6B6B6B})
    assert found is not None
    assert found.operands == ()
    assert found.per_cpu == (0x6B6B6B6B6B6B6B7B,)
    # mov %gs:0x28, %rax: a variable with a fixed place, and no pointer
    found = operands.decode(reader(bytes.fromhex("65488b042528000000")), BASE, {"rax": 1})
    assert found is not None
    assert found.per_cpu == ()
