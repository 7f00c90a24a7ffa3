"""Where the kernels find what they need: slots of the plan, rows of the scratch, units of time.

A kernel gets its settings as one flat array, `plan`: each argument of a compiled call costs time, and a service
calls for one customer. The names below are constants to the compiler.
"""

from __future__ import annotations

from typing import Any

from numba import njit

# A division by zero is inf or NaN. No fastmath: the order of sums counts. Kernels allocate nothing, so they need not
# count references, which would cost an atomic step for each array of each call.
kernel: Any = njit(nogil=True, error_model="numpy", _nrt=False)  # type: ignore[call-overload]

# For the function that a group registers: numba writes its body into the caller, so that handing over the whole
# workspace, some thirty arrays, costs nothing.
group_kernel: Any = njit(nogil=True, error_model="numpy", _nrt=False, inline="always")  # type: ignore[call-overload]

DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000
SECOND_US = 1_000_000
DAYS = 1.0 / DAY_US  # of a µs: a product is cheaper than a quotient
HOURS = 1.0 / HOUR_US
SECONDS = 1.0 / SECOND_US

# rows of `codes`, (6 + n_properties, longest journey) uint32: the events of one snapshot in the model's vocabulary
TOUCHPOINT, CHANNEL, STAGE, ITEM = 0, 1, 2, 3  # offset by the column's base: one space of codes for all four
WORK = 4  # unit of work × 3 + role, see `features.tabular.groups.work`
RAW_ITEM = 5  # the log's own item code, to tell items apart that share a group
FIRST_PROPERTY = 6
N_COLUMNS = 4
NO_ITEM = 0xFFFFFFFF

# rows of `numbers`, (3, longest journey) float64, NaN where missing
VALUE, DURATION, SATISFACTION = 0, 1, 2

# slots of `plan`, int64
SIZE = 0  # 4 slots: codes of touchpoint, channel, stage, item (the known, other, missing); 0: the column is not used
BASE = 4  # 4 slots: the first code of each
N_CODES = 8  # all codes of the four together
N_WINDOWS = 9  # without the last one, over all time
N_VALUE_WINDOWS = 10  # how many of the edges sums of value by code are taken at
SESSION_GAP_US = 11
TREND_WINDOW = 12  # the window that a touchpoint's recent share is taken over
N_PAIRS = 13  # so many touchpoints have pairs and transitions
N_PAIR_STAGES = 14
N_LAST = 15  # so many last touchpoints
N_UNITS = 16  # units of work
N_PROPERTIES = 17
N_PROFILE = 18
N_PROFILE_NUMBERS = 19
N_PROPERTY_TOUCHPOINTS = 20
N_PROPERTY_SHARES = 21
HAS_VALUE, HAS_DURATION = 22, 23
TALLY = 24  # 0: no group needs it, 1: the last occurrence of each code, 2: all of it
VISITS, ACTIVE_DAYS, ITEM_TABLE = 25, 26, 27  # 1: some group needs them
SIZES_OF_PROPERTIES = 28  # from here on: codes of each property (the known, other, missing)
# then a slot a group, in the order of `features.tabular.catalogue.GROUPS`; 1: on

# rows of `occurrences`, (4, N_CODES) float64: what `tally` knows of each code; times in µs, NaN: never
COUNT, FIRST, LAST, BEFORE_LAST = 0, 1, 2, 3
