"""Hashes of strings that are the same on every machine: FarmHash's fingerprint, and SipHash with a key.

Files made elsewhere depend on their values, so they are the published functions, bit by bit.

References: G. Pike, "FarmHash", 2014; J.-P. Aumasson and D. Bernstein, "SipHash: a fast short-input PRF", 2012
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

import numpy as np

_WORD = 0xFFFFFFFFFFFFFFFF
_K0, _K1, _K2 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F
_CAT = 0xC6A4A7935BD1E995


def _at(data: bytes, place: int) -> int:
    return int.from_bytes(data[place : place + 8], "little")


def _right(x: int, bits: int) -> int:
    """Turned right."""
    return ((x >> bits) | (x << (64 - bits))) & _WORD


def _mixed(x: int) -> int:
    return x ^ (x >> 47)


def _pair(u: int, v: int, factor: int) -> int:
    a = _mixed(((u ^ v) * factor) & _WORD)
    return (_mixed(((v ^ a) * factor) & _WORD) * factor) & _WORD


def fingerprint(data: bytes) -> int:
    """FarmHash's 64-bit fingerprint."""
    size = len(data)
    if size > 64:
        return _long(data)
    factor = (_K2 + 2 * size) & _WORD
    if size > 32:
        return _medium(data, factor)
    if size > 16:
        a, b = (_at(data, 0) * _K1) & _WORD, _at(data, 8)
        c, d = (_at(data, size - 8) * factor) & _WORD, (_at(data, size - 16) * _K2) & _WORD
        first = _right((a + b) & _WORD, 43) + _right(c, 30) + d
        return _pair(first & _WORD, (a + _right((b + _K2) & _WORD, 18) + c) & _WORD, factor)
    if size >= 8:
        a, b = (_at(data, 0) + _K2) & _WORD, _at(data, size - 8)
        c = (_right(b, 37) * factor + a) & _WORD
        return _pair(c, ((_right(a, 25) + b) * factor) & _WORD, factor)
    if size >= 4:
        a, b = int.from_bytes(data[:4], "little"), int.from_bytes(data[-4:], "little")
        return _pair((size + (a << 3)) & _WORD, b, factor)
    if size:
        y, z = data[0] + (data[size >> 1] << 8), size + (data[-1] << 2)
        return (_mixed(((y * _K2) ^ (z * _K0)) & _WORD) * _K2) & _WORD
    return _K2


def _medium(data: bytes, factor: int) -> int:
    size = len(data)
    a, b = (_at(data, 0) * _K2) & _WORD, _at(data, 8)
    c, d = (_at(data, size - 8) * factor) & _WORD, (_at(data, size - 16) * _K2) & _WORD
    y = (_right((a + b) & _WORD, 43) + _right(c, 30) + d) & _WORD
    z = _pair(y, (a + _right((b + _K2) & _WORD, 18) + c) & _WORD, factor)
    e, f = (_at(data, 16) * factor) & _WORD, _at(data, 24)
    g, h = ((y + _at(data, size - 32)) * factor) & _WORD, ((z + _at(data, size - 24)) * factor) & _WORD
    first = _right((e + f) & _WORD, 43) + _right(g, 30) + h
    return _pair(first & _WORD, (e + _right((f + a) & _WORD, 18) + g) & _WORD, factor)


def _weak(data: bytes, place: int, a: int, b: int) -> tuple[int, int]:
    w, x, y, z = struct.unpack_from("<4Q", data, place)
    a = (a + w) & _WORD
    b = _right((b + a + z) & _WORD, 21)
    c = a
    a = (a + x + y) & _WORD
    return (a + z) & _WORD, (b + _right(a, 44) + c) & _WORD


def _long(data: bytes) -> int:
    """In steps of 64 bytes; the last step takes the last 64, with another factor."""
    state = [81, (81 * _K1 + 113) & _WORD, 0, 0, 0, 0, 0]
    state[2] = (_mixed((state[1] * _K2 + 113) & _WORD) * _K2) & _WORD
    state[0] = (state[0] * _K2 + _at(data, 0)) & _WORD
    rest = (len(data) - 1) & 63
    for place in range(0, len(data) - 1 - rest, 64):
        state = _step(data, place, state, _K1, 1)
    x, y, z, v0, v1, w0, w1 = state
    factor = (_K1 + ((z & 0xFF) << 1)) & _WORD
    w0 = (w0 + rest) & _WORD
    v0 = (v0 + w0) & _WORD
    w0 = (w0 + v0) & _WORD
    x, y, z, v0, v1, w0, w1 = _step(data, len(data) - 64, [x, y, z, v0, v1, w0, w1], factor, 9)
    first = (_pair(v0, w0, factor) + _mixed(y) * _K0 + z) & _WORD
    return _pair(first, (_pair(v1, w1, factor) + x) & _WORD, factor)


def _step(data: bytes, place: int, state: list[int], factor: int, times: int) -> list[int]:
    x, y, z, v0, v1, w0, w1 = state
    x = (_right((x + y + v0 + _at(data, place + 8)) & _WORD, 37) * factor) & _WORD
    y = (_right((y + v1 + _at(data, place + 48)) & _WORD, 42) * factor) & _WORD
    x ^= (w1 * times) & _WORD
    y = (y + v0 * times + _at(data, place + 40)) & _WORD
    z = (_right((z + w0) & _WORD, 33) * factor) & _WORD
    v0, v1 = _weak(data, place, (v1 * factor) & _WORD, (x + w0) & _WORD)
    w0, w1 = _weak(data, place + 32, (z + w1) & _WORD, (y + _at(data, place + 16)) & _WORD)
    return [z, y, x, v0, v1, w0, w1]


def joined(first: int, second: int) -> int:
    """One hash of two."""
    result = first ^ _CAT
    result ^= (_mixed((second * _CAT) & _WORD) * _CAT) & _WORD
    result = (result * _CAT) & _WORD
    return _mixed((_mixed(result) * _CAT) & _WORD)


def keyed(data: bytes, key: tuple[int, int]) -> int:
    """SipHash-2-4."""
    a, b = key[0] & _WORD, key[1] & _WORD
    v = [a ^ 0x736F6D6570736575, b ^ 0x646F72616E646F6D, a ^ 0x6C7967656E657261, b ^ 0x7465646279746573]
    padded = data + b"\0" * (7 - len(data) % 8) + bytes([len(data) & 0xFF])
    for (word,) in struct.iter_unpack("<Q", padded):
        v[3] ^= word
        _rounds(v, 2)
        v[0] ^= word
    v[2] ^= 0xFF
    _rounds(v, 4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def _rounds(v: list[int], count: int) -> None:
    for _ in range(count):
        v[0] = (v[0] + v[1]) & _WORD
        v[1] = _right(v[1], 51) ^ v[0]
        v[2] = (v[2] + v[3]) & _WORD
        v[3] = _right(v[3], 48) ^ v[2]
        v[0] = _right(v[0], 32)
        v[2] = (v[2] + v[1]) & _WORD
        v[1] = _right(v[1], 47) ^ v[2]
        v[0] = (v[0] + v[3]) & _WORD
        v[3] = _right(v[3], 43) ^ v[0]
        v[2] = _right(v[2], 32)


def buckets(words: Iterable[str], count: int, key: tuple[int, int] | None = None) -> np.ndarray:
    """The bucket of each word, int64."""
    data = (word.encode("utf-8") for word in words)
    return np.array([(fingerprint(d) if key is None else keyed(d, key)) % count for d in data], "int64")
