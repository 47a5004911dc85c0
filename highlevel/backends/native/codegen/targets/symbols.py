"""Which functions of others machine code calls.

LLVM may turn an instruction that the CPU lacks into a call of the C library (`fma` into `fmaf`, say), which would be
slow, and not there on every system. So only three such calls are allowed, and any other is an error of the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator

C_FUNCTIONS = ("memcpy", "memmove", "memset")  # what LLVM makes of loops that copy and fill
OURS = ("k_", "hl_")  # other units, and the functions of devices
HARMLESS = ("_GLOBAL_OFFSET_TABLE_",)  # a name for an address, not a function


def foreign(code: bytes) -> list[str]:
    """The functions that object code calls and should not. Only ELF is understood; of others nothing is said."""
    allowed = (*C_FUNCTIONS, *HARMLESS)
    return [name for name in undefined(code) if name not in allowed and not name.startswith(OURS)]


def undefined(code: bytes) -> list[str]:
    """The symbols that an ELF object (64 bits, little-endian) expects from others."""
    return sorted(_undefined(code)) if code[:6] == b"\x7fELF\x02\x01" else []


def _undefined(code: bytes) -> Iterator[str]:
    def number(at: int, size: int) -> int:
        return int.from_bytes(code[at : at + size], "little")

    table, width, count = number(40, 8), number(58, 2), number(60, 2)
    sections = [table + i * width for i in range(count)]
    for section in sections:
        if number(section + 4, 4) != 2:  # not the table of symbols
            continue
        start, size, strings = number(section + 24, 8), number(section + 32, 8), number(section + 40, 4)
        names = number(sections[strings] + 24, 8)
        for symbol in range(start + 24, start + size, 24):  # the first is empty
            name = number(symbol, 4)
            if name and number(symbol + 6, 2) == 0:
                begin = names + name
                yield code[begin : code.index(b"\0", begin)].decode()
