"""A debug vmlinux made out of a dump: ELF with kallsyms as its symbol table and BTF as DWARF, for crash and gdb."""
