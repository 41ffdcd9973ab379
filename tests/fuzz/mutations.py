"""Damage to bytes, drawn by a seed."""

import random

LIMITS = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\xff\xff", b"\x00\x00\x00\x80")


def damage(random: random.Random, content: bytes) -> bytes:
    """Return `content` with one kind of damage: flipped bits, a cut, zeros, a doubled or lost block, foreign bytes."""
    if not content:
        return random.randbytes(random.randrange(1, 64))
    kind = random.choice((_flip, _flip, _cut, _zeros, _double, _lose, _overwrite, _large_numbers))
    return kind(random, content)


def _flip(random: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 4, 32))):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _cut(random: random.Random, content: bytes) -> bytes:
    return content[: random.randrange(len(content))]


def _block(random: random.Random, content: bytes) -> tuple[int, int]:
    start = random.randrange(len(content))
    return start, min(len(content), start + random.choice((1, 4, 16, 256, 4096)))


def _zeros(random: random.Random, content: bytes) -> bytes:
    start, end = _block(random, content)
    return content[:start] + bytes(end - start) + content[end:]


def _double(random: random.Random, content: bytes) -> bytes:
    start, end = _block(random, content)
    return content[:end] + content[start:end] * random.choice((1, 1, 100)) + content[end:]


def _lose(random: random.Random, content: bytes) -> bytes:
    start, end = _block(random, content)
    return content[:start] + content[end:]


def _overwrite(random: random.Random, content: bytes) -> bytes:
    start, end = _block(random, content)
    return content[:start] + random.randbytes(end - start) + content[end:]


def _large_numbers(random: random.Random, content: bytes) -> bytes:
    """Write a number that is a limit of some integer, where a size may stand."""
    start = random.randrange(min(len(content), random.choice((64, 512, len(content)))))
    number = random.choice(LIMITS)
    return content[:start] + number + content[start + len(number) :]
