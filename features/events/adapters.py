"""The adapters that `[events] adapter` can name. A new one is a file with an `ADAPTER` and an entry here."""

from __future__ import annotations

from features.events import bpi2012, online_retail
from features.events.adapter import Adapter

ADAPTERS: dict[str, Adapter] = {
    adapter.name: adapter
    for adapter in (
        online_retail.ADAPTER,
        bpi2012.ADAPTER,
    )
}
