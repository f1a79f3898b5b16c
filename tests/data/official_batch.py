"""Writes a batch in the official CIFAR-10 layout: a Python 2 pickle of protocol 2, assembled opcode by opcode."""

import struct


def text(value: bytes) -> bytes:
    short = len(value) < 256
    return (b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<i", len(value))) + value


def integers(values: list[int]) -> bytes:
    return b"](" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"e"


def array(pixels: bytes, shape: tuple[int, int], dtype: bytes = b"u1") -> bytes:
    rebuild = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    kind = b"cnumpy\ndtype\n" + text(dtype) + b"K\x00K\x01\x87R"
    kind += b"(K\x03" + text(b"|") + b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00tb"
    sides = b"".join(b"M" + struct.pack("<H", side) for side in shape) + b"\x86"
    return rebuild + b"(K\x01" + sides + kind + b"\x89" + text(pixels) + b"tb"


def batch(data: bytes, labels: bytes) -> bytes:
    return b"\x80\x02}q\x01(" + text(b"labels") + labels + text(b"data") + data + b"u."
