"""Mutations for `fuzz.py`: bytes to damaged bytes, drawn by a `random.Random`; some know a format and keep its checks.

A mutation takes the bytes, the generator and other seeds to splice with. One that knows a format falls back on `damage`
where the bytes are not of it.
"""

import gzip
import json
import pickletools
import struct
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

Mutation = Callable[[bytes, Random, Sequence[bytes]], bytes]

NUMBERS = (0, 1, 2, 127, 128, 255, 256, 32767, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**16, 2**31, 2**63, 2**70, -(2**63), 0.5, -0.0, 1e-320, 1e308),
    *(float("nan"), float("inf"), "", "a", "\n\x1b[2J", "../../x", "/etc/passwd", "\ud800", "x" * 3000),
    *([], [[]], [0] * 40, ["a", {}], {}, {"a": 1}, {"": {"": {}}}),
)
TOKENS = (
    *(b"nan", b"inf", b"-1", b"1e309", b"1" * 5000, b"NaN", b"Infinity", b"null", b"[" * 3000, b'{"a":' * 3000),
    *(b"../", b"/", b"\0", b"\n", b"\r\n", b"\x1b[2J", b"\xff\xfe", b"\xed\xa0\x80", "\u202e\u0661\u00b2".encode()),
    *(b"*", b"?", b"[", b"]", b"[!", b":", b"=", b",", b"'", b'"', b"%s", b"{}", b"\\", b"#", b";", b"-"),
)


def damage(data: bytes, random: Random, others: Sequence[bytes] = ()) -> bytes:
    """One blow that knows no format: bits, spans, ends, splices, tokens, and numbers where lengths could be."""
    made = bytearray(data)
    size = len(made)
    start = random.randrange(size + 1)
    stop = min(size, start + 1 + int(random.expovariate(1 / 16)))
    match random.randrange(10):
        case 0 if size:
            for _ in range(random.choice((1, 1, 2, 8, 32))):
                made[random.randrange(size)] ^= 1 << random.randrange(8)
        case 1 if size:
            made[random.randrange(size)] = random.choice((0, 1, 127, 128, 255, 32, 10))
        case 2:
            del made[start:stop]
        case 3:
            made[start:start] = made[start:stop] * random.choice((1, 2, 50))
        case 4:
            made[start:stop] = random.randbytes(random.randrange(1, 24))
        case 5:
            del made[start:]
        case 6 if others:
            other = random.choice(others)
            made[start:] = other[random.randrange(len(other) + 1) :]
        case 7:
            made[start:start] = random.choice(TOKENS)
        case 8:
            made[start:stop] = random.choice(TOKENS)
        case _:
            width = random.choice((1, 2, 4, 8))
            if size >= width:
                number = random.choice(NUMBERS) + random.choice((-1, 0, 0, 1))
                place = random.randrange(size - width + 1)
                order = random.choice(("little", "big"))
                made[place : place + width] = (number % 256**width).to_bytes(width, order)
    return bytes(made)


def json_value(value: Any, random: Random) -> Any:
    """A JSON value with one of its parts replaced, removed, doubled or renamed."""
    if isinstance(value, dict) and value and random.random() < 0.85:
        made, key = dict(value), random.choice(list(value))
        match random.randrange(8):
            case 0:
                del made[key]
            case 1:
                made[random.choice(("", "a", "\n", "x" * 300, "__class__"))] = made[key]
            case _:
                made[key] = json_value(made[key], random)
        return made
    if isinstance(value, list) and value and random.random() < 0.7:
        listed, place = list(value), random.randrange(len(value))
        match random.randrange(6):
            case 0:
                del listed[place]
            case 1:
                listed.append(listed[place])
            case _:
                listed[place] = json_value(listed[place], random)
        return listed
    if type(value) is int and random.random() < 0.5:
        return value + random.choice((-1, 1, 2**31, -value, -2 * value, 10**6))
    return random.choice(VALUES)


def json_text(data: bytes, random: Random, others: Sequence[bytes] = ()) -> bytes:
    """A JSON text with one part changed, so that it is still JSON."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return damage(data, random, others)
    return json.dumps(json_value(value, random)).encode()


def safetensors(data: bytes, random: Random, others: Sequence[bytes] = ()) -> bytes:
    """A safetensors file with a change in its header, in the card within the header, or in its tensors' bytes."""
    try:
        length = struct.unpack("<Q", data[:8])[0]
        header, body = json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])
        kind = random.randrange(10)
        if kind < 5:
            notes = header["__metadata__"]
            key = random.choice(list(notes))
            notes[key] = json.dumps(json_value(json.loads(notes[key]), random))
        elif kind < 7:
            header = json_value(header, random)
        elif kind < 8:
            name = random.choice([name for name in header if name != "__metadata__"])
            _retype(header[name], random)
        elif body:
            place = random.randrange(len(body)) // 4 * 4
            odd = random.choice((float("nan"), float("inf"), -1e38, 0.0, 1e-42))
            body[place : place + 4] = struct.pack("<f", odd)
        text = json.dumps(header).encode()
    except (ValueError, LookupError, TypeError, AttributeError, struct.error, OverflowError, RecursionError):
        return damage(data, random, others)
    return struct.pack("<Q", len(text)) + text + bytes(body)


_WIDTHS = {"F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "I64": 8, "F64": 8, "C64": 8, "U64": 8}
_WIDTHS |= {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2}


def _retype(entry: dict[str, Any], random: Random) -> None:
    """Another type of as many bytes, or the shape turned round, or flattened."""
    width = _WIDTHS[entry["dtype"]]
    match random.randrange(3):
        case 0:
            entry["dtype"] = random.choice([name for name, each in _WIDTHS.items() if each == width])
        case 1:
            entry["shape"] = entry["shape"][::-1]
        case _:
            count = 1
            for side in entry["shape"]:
                count *= side
            entry["shape"] = random.choice(([count], [1, count], [count, 1, 1]))


_FIELDS = {
    "name": (0, 100),
    "mode": (100, 8),
    "size": (124, 12),
    "time": (136, 12),
    "kind": (156, 1),
    "link": (157, 100),
}
_FIELDS |= {"magic": (257, 8), "owner": (265, 32), "prefix": (345, 155), "sparse": (386, 97)}
_NAMES = (b"../../x.png", b"/etc/x.png", b"a/../../b.png", b"", b".", b"..", b"\xff\xfe.png", b"a\nb.png", b"C:\\x.png")


def tar(data: bytes, random: Random, others: Sequence[bytes] = ()) -> bytes:
    """A tar with one field of one header changed and its checksum set right; now and then compressed."""
    made = bytearray(data)
    heads = [place for place in range(0, len(made) - 511, 512) if made[place + 257 : place + 262] == b"ustar"]
    if not heads:
        return damage(data, random, others)
    head = random.choice(heads)
    name = random.choice(list(_FIELDS))
    start, width = _FIELDS[name]
    if name in ("name", "link", "prefix"):
        value = random.choice(_NAMES)
    elif name == "kind":
        value = random.choice(
            (b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"L", b"K", b"S", b"x", b"g", b"D", b"V")
        )
    elif name in ("size", "sparse"):
        number = random.choice(NUMBERS)
        value = random.choice((b"%011o" % (number % 8**11), b"\x80" + number.to_bytes(11, "big"), b"-1", b"\xff" * 12))
    else:
        value = random.randbytes(random.randrange(width + 1))
    made[head + start : head + start + width] = value[:width].ljust(width, b"\0")
    made[head + 148 : head + 156] = b" " * 8
    made[head + 148 : head + 156] = b"%06o\0 " % sum(made[head : head + 512])
    return gzip.compress(bytes(made), 1) if random.random() < 0.1 else bytes(made)


def gzipped_tar(data: bytes, random: Random, others: Sequence[bytes] = ()) -> bytes:
    """As `tar`, of a compressed one."""
    try:
        plain = gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        return damage(data, random, others)
    return gzip.compress(random.choice((tar, damage))(plain, random, ()), 1)


_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"iCCP", b"sRGB", b"pHYs", b"tEXt", b"zTXt")
_CHUNKS += (b"iTXt", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"bKGD", b"sBIT", b"tIME")


def png(data: bytes, random: Random, others: Sequence[bytes] = ()) -> bytes:
    """A PNG with one chunk changed, removed, doubled, moved or put in, all checksums right."""
    chunks, place = [], 8
    while place + 8 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    if not chunks:
        return damage(data, random, others)
    which = random.randrange(len(chunks))
    kind, content = chunks[which]
    match random.randrange(8):
        case 0:
            del chunks[which]
        case 1:
            chunks.insert(random.randrange(len(chunks) + 1), chunks[which])
        case 2:
            chunks[which] = (random.choice(_CHUNKS), content)
        case 3:
            new = random.choice(
                (random.randbytes(random.randrange(40)), b"a\0\0" + zlib.compress(bytes(random.choice((9, 2**22)))))
            )
            chunks.insert(random.randrange(len(chunks) + 1), (random.choice(_CHUNKS), new))
        case 4 if kind == b"IDAT":
            try:
                pixels = zlib.decompress(content)
            except zlib.error:
                pixels = content
            chunks[which] = (kind, zlib.compress(damage(pixels, random, ()), 1))
        case 5 | 6:
            width, height = (random.choice((0, 1, 7, 5000, 9000, 2**16, 2**31 - 1, 2**32 - 1)) for _ in range(2))
            depth, colour, *rest = (random.choice((0, 1, 2, 3, 4, 6, 8, 16, 255)) for _ in range(5))
            head = struct.pack(">II", width, height) if random.random() < 0.5 else content[:8]
            chunks[0] = (b"IHDR", head + bytes((depth, colour, *(rest if random.random() < 0.2 else (0, 0, 0)))))
        case _:
            chunks[which] = (kind, damage(content, random, ()))
    parts = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    return data[:8] + b"".join(parts)


_OPCODES = tuple(opcode.code.encode("latin-1") for opcode in pickletools.opcodes)
_PIECES = (
    b"cos\nsystem\n",
    b"c__builtin__\neval\n",
    b"(S'id'\ntR",
    b"R",
    b"b",
    b"o",
    b"i",
    b"\x93",
    b"\x94",
    b"P1\n",
    b"Q",
)
_PIECES += (
    b"q\xff",
    b"h\xff",
    b"r\xff\xff\xff\xff",
    b"j\0\0\0\0",
    b"(",
    b"t",
    b"e",
    b"u",
    b"s",
    b"}",
    b"]",
    b"\x85" * 500,
)
_PIECES += (b"](" * 2000, b"B\xff\xff\xff\x7f", b"T\xff\xff\xff\xff", b"\x8b\xff\xff\xff\x7f", b"\x8a\xff", b"\x95" * 9)


def pickled(data: bytes, random: Random, others: Sequence[bytes] = ()) -> bytes:
    """A pickle with instructions put in, taken out, doubled or exchanged at their borders."""
    try:
        places = [place for _, _, place in pickletools.genops(data) if place is not None]
    except (ValueError, IndexError, struct.error, KeyError):
        return damage(data, random, others)
    ends = [*places[1:], len(data)]
    which = random.randrange(len(places))
    start, stop = places[which], ends[which]
    match random.randrange(5):
        case 0:
            return data[:start] + data[stop:]
        case 1:
            return data[:stop] + data[start:stop] + data[stop:]
        case 2:
            return data[:start] + random.choice(_PIECES) + data[start:]
        case 3:
            return data[:start] + random.choice(_OPCODES) + data[start + 1 :]
        case _:
            other = random.randrange(len(places))
            return data[:start] + data[places[other] : ends[other]] + data[stop:]


SEAM = b"\n--- the next file ---\n"  # between the files of a folder that is one input


def one_of(*knowing: Mutation) -> Mutation:
    """One of the files of a folder changed, each by what knows its format."""

    def mutate(data: bytes, random: Random, others: Sequence[bytes] = ()) -> bytes:
        files = data.split(SEAM)
        which = random.randrange(len(files))
        files[which] = knowing[which % len(knowing)](files[which], random, ())
        return SEAM.join(files)

    return mutate


def mixed(knowing: Mutation, share: float = 0.6) -> Mutation:
    """One to four blows, of which about a `share` know the format."""

    def mutate(data: bytes, random: Random, others: Sequence[bytes] = ()) -> bytes:
        for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
            data = (knowing if random.random() < share else damage)(data, random, others)
        return data

    return mutate
