"""Variety: which items and touchpoints come again. The variety group.

Items are told apart by the log's own codes, however many there are: a small hash table with open addressing,
as large as the snapshot needs, so that the cost does not grow with the number of items in the log.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from features.tabular.group import Column, FeatureGroup, Names, OneSnapshot, Workspace
from features.tabular.plan import BASE, COUNT, ITEM, N_COLUMNS, N_WINDOWS, NO_ITEM, RAW_ITEM, SIZE, group_kernel, kernel

Array = Any
EMPTY = -1
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ / golden ratio: spreads neighbouring codes
# rows of `table`, (6, slots) int64; `USED` lists the slots in use
KEY, TIMES, FIRST_VISIT, VISITS_WITH, LAST_VISIT, USED = 0, 1, 2, 3, 4, 5
TIMES_LOG = np.array([0.0] + [count * np.log(count) for count in range(1, 256)])


@kernel
def times_log(count: int) -> Any:
    """A count times its logarithm, for entropies; most counts are small."""
    return TIMES_LOG[count] if count < 256 else count * np.log(count)


@kernel
def table_bits(n: int) -> int:
    """The size, as a power of two, of a table for `n` items: at most half full."""
    bits = 3
    while (1 << bits) < 2 * n:
        bits += 1
    return bits


@kernel
def slot_of(table: Array, bits: int, item: int) -> Any:
    """Where the item is, or the empty slot where it belongs."""
    slot = np.int64((np.uint64(item) * GOLDEN) >> np.uint64(64 - bits))
    while table[KEY, slot] != EMPTY and table[KEY, slot] != item:
        slot = (slot + 1) & ((1 << bits) - 1)
    return slot


@kernel
def variety(
    row: Array, at: int, plan: Array, edges: Array, occurrences: Array, codes: Array, visits: Array, m: int, n: int,
    table: Array,
) -> int:  # fmt: skip
    """Distinct touchpoints, channels, stages; changes of channel; then items, where the log has them."""
    for column in range(N_COLUMNS):
        if plan[SIZE + column] > 0 and column != ITEM:
            distinct, spread = 0, 0.0
            for c in range(plan[BASE + column], plan[BASE + column] + plan[SIZE + column]):
                if occurrences[COUNT, c] > 0.0:
                    distinct += 1
                    spread += times_log(np.int64(occurrences[COUNT, c]))
            row[at] = distinct
            row[at + 1] = np.log(n) - spread / n if n > 0 else np.nan
            row[at + 2] = changes(codes, column, n)
            at += 3
    if plan[SIZE + ITEM] > 0:
        at = items(row, at, plan[N_WINDOWS] + 1, edges, codes, visits, m, n, table)
    return at


@kernel
def changes(codes: Array, column: int, n: int) -> int:
    """How often the code differs from the event before."""
    count = 0
    for i in range(1, n):
        count += codes[column, i] != codes[column, i - 1]
    return count


@kernel
def items(
    row: Array, at: int, n_edges: int, edges: Array, codes: Array, visits: Array, m: int, n: int, table: Array
) -> Any:
    """Distinct and new items by window, and how much of what is bought was bought before."""
    bits = table_bits(n)
    at, distinct = remember(row, at, bits, codes, visits, m, table)
    again, most, lines, spread = 0, 0, 0, 0.0
    for k in range(distinct):
        slot = table[USED, k]
        lines += table[TIMES, slot]
        most = max(most, table[TIMES, slot])
        again += table[VISITS_WITH, slot] > 1
        spread += times_log(table[TIMES, slot])
    row[at] = distinct / lines if lines > 0 else np.nan
    row[at + 1] = again
    row[at + 2] = again / distinct if distinct > 0 else np.nan
    row[at + 3] = most / lines if lines > 0 else np.nan
    row[at + 4] = np.log(lines) - spread / lines if lines > 0 else np.nan
    row[at + 5] = distinct / m if m > 0 else np.nan
    return distinct_by_window(row, at + 6, bits, n_edges, edges, codes, n, table)


@kernel
def remember(row: Array, at: int, bits: int, codes: Array, visits: Array, m: int, table: Array) -> tuple[int, int]:
    """Fill the table, visit by visit; write the shares of lines whose item came in an earlier visit."""
    for slot in range(1 << bits):
        table[KEY, slot] = EMPTY
    distinct, lines, repeats, lines_now, repeats_now = 0, 0, 0, 0, 0
    for j in range(m):
        lines_now = repeats_now = 0
        for i in range(visits[j], visits[j + 1]):
            item = codes[RAW_ITEM, i]
            if item != NO_ITEM:
                slot = slot_of(table, bits, item)
                if table[KEY, slot] == EMPTY:
                    table[KEY, slot], table[TIMES, slot] = item, 0
                    table[FIRST_VISIT, slot] = table[LAST_VISIT, slot] = j
                    table[VISITS_WITH, slot] = 1
                    table[USED, distinct] = slot
                    distinct += 1
                table[VISITS_WITH, slot] += table[LAST_VISIT, slot] != j
                table[LAST_VISIT, slot] = j
                table[TIMES, slot] += 1
                repeats_now += table[FIRST_VISIT, slot] < j
                lines_now += 1
        lines += lines_now
        repeats += repeats_now
    row[at] = repeats / lines if lines > 0 else np.nan
    row[at + 1] = (repeats - repeats_now) / (lines - lines_now) if lines > lines_now else np.nan
    row[at + 2] = repeats_now / lines_now if lines_now > 0 else np.nan
    row[at + 3] = lines_now - repeats_now
    return at + 4, distinct


@kernel
def distinct_by_window(
    row: Array, at: int, bits: int, n_edges: int, edges: Array, codes: Array, n: int, table: Array
) -> int:
    """Items with an event in the window, and those whose first event ever is in it; uses up the counts."""
    high, n_items, fresh = n, 0, 0
    for w in range(n_edges):
        for i in range(high - 1, edges[w] - 1, -1):
            item = codes[RAW_ITEM, i]
            if item != NO_ITEM:
                slot = slot_of(table, bits, item)
                n_items += table[LAST_VISIT, slot] >= 0  # met for the first time on the way back
                table[LAST_VISIT, slot] = -1
                table[TIMES, slot] -= 1
                fresh += table[TIMES, slot] == 0
        high = edges[w]
        row[at + 2 * w] = n_items
        row[at + 2 * w + 1] = fresh
    at += 2 * n_edges
    return at


@kernel
def decode_items(codes: Array, item: Array, start: int, n: int) -> None:
    """The log's own item codes."""
    for i in range(n):
        codes[RAW_ITEM, i] = NO_ITEM if len(item) == 0 or item[start + i] < 0 else item[start + i]


def _variety_columns(names: Names) -> Iterator[Column]:
    for column in names.columns:
        if column != "item":
            yield f"{column}s_distinct", f"different {column}s (all others count as one)"
            yield f"{column}_entropy", f"entropy of the shares of {column}s, nats"
            yield f"{column}_changes", f"events whose {column} differs from the event's before"
    if "item" in names.columns:
        yield "item_repeat_share", "share of lines whose item came in an earlier visit"
        yield "item_repeat_share_before_last", "the same, without the last visit"
        yield "item_repeat_share_last", "share of the last visit's lines whose item came in an earlier visit"
        yield "item_new_lines_last", "lines of the last visit whose item is new to the customer"
        yield "items_distinct_per_line", "different items over lines with an item"
        yield "items_repeated", "items that came in more than one visit"
        yield "items_repeated_share", "share of the items that came in more than one visit"
        yield "item_top_share", "share of lines with the customer's most frequent item"
        yield "item_entropy", "entropy of the shares of items, nats"
        yield "items_distinct_per_visit", "different items over visits"
        for label, text in names.windows:
            yield f"items_distinct_{label}", f"different items {text}"
            yield f"items_new_{label}", f"items that came for the first time {text}"


@group_kernel
def _write_variety(row: Array, at: int, w: Workspace, s: OneSnapshot) -> Any:
    decode_items(w.codes, w.item, s.start, s.n)
    return variety(row, at, w.plan, w.edges, w.occurrences, w.codes, w.visits, s.n_visits, s.n, w.table)


VARIETY_GROUP = FeatureGroup("variety", _variety_columns, _write_variety, needs=("tally", "visits", "item_table"))
