"""Text to whole numbers, in order of first appearance, exact and growing: the index behind packing and look-ups."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.errors import DataError
from features.events.text_index_kernels import FREE, arena_texts, find_texts, intern_texts, rebuild_slots, text_bytes

Codes = npt.NDArray[np.int32]
FIRST_SLOTS = 1 << 10
FIRST_WORDS = 1 << 11
MOST_BYTES = 2**31 - 1  # the borders of an Arrow text array are int32


class TextIndex:
    """A growing set of texts, each with the code of its first appearance.

    >>> index = TextIndex()
    >>> index.add(pa.array(["b", "a", "b"])).tolist()
    [0, 1, 0]
    >>> index.find(pa.array(["a", "z"])).tolist(), index.texts().to_pylist()
    ([1, -1], ['b', 'a'])
    """

    def __init__(self) -> None:
        self._slots: npt.NDArray[np.uint64] = np.full(FIRST_SLOTS, FREE, np.uint64)
        self._arena: npt.NDArray[np.uint64] = np.empty(FIRST_WORDS, np.uint64)
        self._used: npt.NDArray[np.int64] = np.zeros(2, np.int64)  # texts, words of the arena

    def __len__(self) -> int:
        return int(self._used[0])

    def add(self, texts: pa.Array) -> Codes:
        """(n,) int32 codes of `texts` (`pa.string()`, no nulls); new ones get the next codes."""
        offsets, data = text_buffers(texts)
        codes: Codes = np.empty(len(texts), np.int32)
        row = 0
        while row < len(texts):
            row = intern_texts(row, offsets, data, self._slots, self._arena, self._used, codes)
            if row < len(texts):
                self._grow(int(offsets[row + 1] - offsets[row]))
        return codes

    def find(self, texts: pa.Array) -> Codes:
        """(n,) int32 codes of `texts` (`pa.string()`, no nulls), -1 for those never added."""
        codes: Codes = np.empty(len(texts), np.int32)
        find_texts(*text_buffers(texts), self._slots, self._arena, codes)
        return codes

    def texts(self) -> pa.Array:
        """Every text, in the order of the codes.

        Raises:
            DataError: more bytes of text than can be indexed.
        """
        n_bytes = int(text_bytes(self._arena, len(self)))
        if n_bytes > MOST_BYTES:
            raise DataError(f"{len(self):,} identifiers take {n_bytes:,} bytes; at most {MOST_BYTES:,} can be indexed.")
        offsets, data = np.zeros(len(self) + 1, np.int32), np.empty(n_bytes, np.uint8)
        arena_texts(self._arena, len(self), offsets, data)
        return pa.StringArray.from_buffers(len(self), pa.py_buffer(offsets), pa.py_buffer(data))

    def _grow(self, size: int) -> None:
        words = int(self._used[1]) + size // 8 + 2
        if words > len(self._arena):
            arena = np.empty(max(2 * len(self._arena), words), np.uint64)
            arena[: self._used[1]] = self._arena[: self._used[1]]
            self._arena = arena
        if len(self) >= len(self._slots) // 2:
            self._slots = np.full(4 * len(self._slots), FREE, np.uint64)
            rebuild_slots(self._slots, self._arena, len(self))


def text_buffers(texts: pa.Array) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """The (n + 1,) borders and the bytes of a `pa.string()` array, without a copy."""
    _, borders, data = texts.buffers()
    if borders is None:
        return np.zeros(1, np.int32), np.zeros(0, np.uint8)
    offsets: npt.NDArray[Any] = np.frombuffer(borders, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return offsets, np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(0, np.uint8)
