"""Compiled kernels that give texts their codes: a hash table over records in one flat array.

All are serial, `nogil` and cached; two threads call them side by side on different rows. None enters numba's
parallel layer, so a service may call them from any thread.
"""

from __future__ import annotations

import numba
import numpy as np

import features.kernel_cache  # noqa: F401  # before any kernel is declared

FREE = np.uint64(0xFFFFFFFFFFFFFFFF)
LOW_32 = np.uint64(0xFFFFFFFF)
HIGH_32 = np.uint64(0xFFFFFFFF00000000)
MIX_A = np.uint64(0x9E3779B97F4A7C15)
MIX_B = np.uint64(0xD6E8FEB86659FD93)
# indices and shifts are unsigned: a signed index would be tested for being negative at each byte
ZERO, ONE, TWO, THREE, FOUR, FIVE, SIX, SEVEN, EIGHT = (np.uint64(k) for k in range(9))
S8, S16, S24, S32, S40, S48, S56 = (np.uint64(8 * k) for k in range(1, 8))
BLOCK = 128  # rows whose slots are fetched together, so that waiting for memory overlaps


@numba.njit(inline="always")
def _word(data, i):  # type: ignore[no-untyped-def]
    """The eight bytes at `i`, little end first; the compiler makes it one load."""
    return (
        np.uint64(data[i])
        | (np.uint64(data[i + ONE]) << S8)
        | (np.uint64(data[i + TWO]) << S16)
        | (np.uint64(data[i + THREE]) << S24)
        | (np.uint64(data[i + FOUR]) << S32)
        | (np.uint64(data[i + FIVE]) << S40)
        | (np.uint64(data[i + SIX]) << S48)
        | (np.uint64(data[i + SEVEN]) << S56)
    )


@numba.njit(inline="always")
def _tail(data, i, last):  # type: ignore[no-untyped-def]
    """The bytes of `data[i:last]`, fewer than eight, as one word."""
    if i + EIGHT <= np.uint64(len(data)):  # one load, of which the rest is masked: nearly always
        return _word(data, i) & ((ONE << ((last - i) << THREE)) - ONE)
    tail, shift = ZERO, ZERO
    while i < last:
        tail |= np.uint64(data[i]) << shift
        shift += EIGHT
        i += ONE
    return tail


@numba.njit(inline="always")
def _hash(data, first, last):  # type: ignore[no-untyped-def]
    """A 64-bit hash of `data[first:last]`."""
    h, i = (last - first) * MIX_A, first
    while i + EIGHT <= last:
        h = (h ^ _word(data, i)) * MIX_B
        h ^= h >> S32
        i += EIGHT
    h = (h ^ _tail(data, i, last)) * MIX_A
    h ^= h >> S32
    h *= MIX_B
    return h ^ (h >> S32)


@numba.njit(inline="always")
def _is_at(data, first, last, arena, record):  # type: ignore[no-untyped-def]
    """Whether the record holds the text `data[first:last]`."""
    if arena[record] >> S32 != last - first:
        return False
    i, at = first, record + ONE
    while i + EIGHT <= last:
        if _word(data, i) != arena[at]:
            return False
        i += EIGHT
        at += ONE
    return i == last or _tail(data, i, last) == arena[at]


@numba.njit(inline="always")
def _append(data, first, last, arena, record, code):  # type: ignore[no-untyped-def]
    """Write a record: (bytes << 32 | code), then the text in words; returns where the next one starts."""
    arena[record] = ((last - first) << S32) | code
    i, at = first, record + ONE
    while i + EIGHT <= last:
        arena[at] = _word(data, i)
        i += EIGHT
        at += ONE
    if i < last:
        arena[at] = _tail(data, i, last)
        at += ONE
    return at


@numba.njit(inline="always")
def _find(data, first, last, h, slots, arena):  # type: ignore[no-untyped-def]
    """The slot that holds the text, or the free one where it belongs."""
    mask = np.uint64(len(slots)) - ONE
    slot = h & mask
    while True:
        held = slots[slot]
        if held == FREE or (held & HIGH_32 == h & HIGH_32 and _is_at(data, first, last, arena, held & LOW_32)):
            return slot
        slot = (slot + ONE) & mask


@numba.njit(inline="always")
def _fetch(offsets, data, row, n, slots, arena, hashes):  # type: ignore[no-untyped-def]
    """Hash the next rows and touch what they will need; the sum keeps the compiler from dropping the loads."""
    mask = np.uint64(len(slots)) - ONE
    touched = ZERO
    for k in range(n):
        hashes[k] = _hash(data, np.uint64(offsets[row + k]), np.uint64(offsets[row + k + 1]))
        touched += slots[hashes[k] & mask]
    for k in range(n):
        held = slots[hashes[k] & mask]
        if held != FREE:
            touched += arena[held & LOW_32]
    return touched


@numba.njit(nogil=True, cache=True)
def intern_texts(begin, offsets, data, slots, arena, used, codes):  # type: ignore[no-untyped-def]
    """Give each text its code, new ones the next; stops early where a buffer is full.

    Of the arguments:
        begin: the first row to do.
        offsets, data: (n + 1,) and (bytes,) of an Arrow text array.
        slots: (2^k,) uint64: part of the hash in the upper half, the record's place in the lower; `FREE` elsewhere.
        arena: (words,) uint64, the records of the texts known so far.
        used: (2,) int64: how many texts are known, how many words of the arena they take. Updated.
        codes: (n,) int32 out.

    Returns:
        The row where it stopped, n when done.
    """
    hashes = np.empty(BLOCK, np.uint64)
    n_names, end = np.uint64(used[0]), np.uint64(used[1])
    room, touched, n = np.uint64(len(slots) // 2), ZERO, len(codes)
    row = begin
    while row < n:
        size = min(BLOCK, n - row)
        touched += _fetch(offsets, data, row, size, slots, arena, hashes)
        for k in range(size):
            first, last = np.uint64(offsets[row + k]), np.uint64(offsets[row + k + 1])
            slot = _find(data, first, last, hashes[k], slots, arena)
            held = slots[slot]
            if held != FREE:
                codes[row + k] = np.int32(arena[held & LOW_32] & LOW_32)
                continue
            if n_names >= room or end + ((last - first + SEVEN) >> THREE) + ONE > np.uint64(len(arena)):
                used[0], used[1] = n_names, end
                return row + k
            slots[slot] = (hashes[k] & HIGH_32) | end
            end = _append(data, first, last, arena, end, n_names)
            codes[row + k] = np.int32(n_names)
            n_names += ONE
        row += size
    used[0], used[1] = n_names, end
    hashes[0] = touched  # a use, so that the loads stay
    return n


@numba.njit(nogil=True, cache=True)
def find_texts(offsets, data, slots, arena, codes):  # type: ignore[no-untyped-def]
    """The code of each text, -1 where it is not known; arguments as for `intern_texts`."""
    for row in range(len(codes)):
        first, last = np.uint64(offsets[row]), np.uint64(offsets[row + 1])
        held = slots[_find(data, first, last, _hash(data, first, last), slots, arena)]
        codes[row] = np.int32(-1) if held == FREE else np.int32(arena[held & LOW_32] & LOW_32)


@numba.njit(nogil=True, cache=True)
def rebuild_slots(slots, arena, n_names):  # type: ignore[no-untyped-def]
    """Enter every record of the arena into a new, empty table."""
    mask = np.uint64(len(slots)) - ONE
    record = ZERO
    for _ in range(n_names):
        size = arena[record] >> S32
        h = size * MIX_A
        for k in range(size >> THREE):
            h = (h ^ arena[record + ONE + np.uint64(k)]) * MIX_B
            h ^= h >> S32
        tail = arena[record + ONE + (size >> THREE)] if size & SEVEN else ZERO
        h = (h ^ tail) * MIX_A
        h ^= h >> S32
        h *= MIX_B
        h ^= h >> S32
        slot = h & mask
        while slots[slot] != FREE:
            slot = (slot + ONE) & mask
        slots[slot] = (h & HIGH_32) | record
        record += ONE + ((size + SEVEN) >> THREE)


@numba.njit(nogil=True, cache=True)
def text_bytes(arena, n_names):  # type: ignore[no-untyped-def]
    """How many bytes the texts of the arena have together."""
    record, total = ZERO, ZERO
    for _ in range(n_names):
        size = arena[record] >> S32
        total += size
        record += ONE + ((size + SEVEN) >> THREE)
    return total


@numba.njit(nogil=True, cache=True)
def arena_texts(arena, n_names, offsets, data):  # type: ignore[no-untyped-def]
    """Write the texts of the arena, in the order of their codes, as an Arrow text array's borders and bytes."""
    record, at = ZERO, ZERO
    for name in range(n_names):
        size = arena[record] >> S32
        for k in range(size):
            i = np.uint64(k)
            data[at + i] = np.uint8((arena[record + ONE + (i >> THREE)] >> ((i & SEVEN) << THREE)) & np.uint64(255))
        at += size
        offsets[name + 1] = at
        record += ONE + ((size + SEVEN) >> THREE)


@numba.njit(nogil=True, cache=True)
def any_blank_start(offsets, data):  # type: ignore[no-untyped-def]
    """Whether any text is empty or begins with a space, a control character or a byte outside ASCII."""
    for row in range(len(offsets) - 1):
        first = offsets[row]
        if offsets[row + 1] == first or data[first] <= 32 or data[first] >= 127:
            return True
    return False
