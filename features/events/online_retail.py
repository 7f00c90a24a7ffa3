"""UCI *Online Retail*: one event an invoice line.

What became of the file's oddities, and why:

* An invoice that starts with `C` is a cancellation: its lines are `return`, with a negative value. Every other line
  is a `purchase`, postage and manual lines included: whoever pays postage was active that day.
* A line without a CustomerID belongs to nobody (guests, and bookings such as bad debt): rejected.
* An exact duplicate line is rejected when the experiment says `duplicates = "quarantine"` (as the shipped one does).
* A price of zero is a gift or a sample: kept, worth 0; the customer was active. Negative prices occur on bad debt only.
* Item codes differ in case for the same article (`85123a`, `85123A`): upper case. Times are local and naive.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from features.events.adapter import REJECT, Adapter, first_reason, number_or_null
from features.events.schema import EventSchema

COLUMNS = ("InvoiceNo", "StockCode", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")


def online_retail(raw: pa.Table) -> pa.Table:
    """Invoice lines → canonical events: purchase and return, item, value in GBP, the customer's country."""
    cancelled = pc.starts_with(pc.utf8_upper(raw["InvoiceNo"].cast(pa.string())), "C")
    quantity, price = number_or_null(raw["Quantity"]), number_or_null(raw["UnitPrice"])
    return pa.table(
        {
            "customer_id": _customer(raw),
            "timestamp": raw["InvoiceDate"],
            "touchpoint": pc.if_else(cancelled, "return", "purchase"),
            "item": pc.utf8_upper(raw["StockCode"].cast(pa.string())),
            "value": pc.multiply(quantity, price),
            "country": raw["Country"],
            REJECT: first_reason(
                {
                    "no CustomerID: a guest, or a booking": _customer(raw).is_null(),
                    "Quantity is not a number": quantity.is_null(),
                    "UnitPrice is not a number": price.is_null(),
                }
            ),
        }
    )


def _customer(raw: pa.Table) -> pa.ChunkedArray:
    """The text before any `.0`; null where there is none."""
    text = pc.replace_substring_regex(raw["CustomerID"].cast(pa.string()), r"\.0*$", "")
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def notes(raw: pa.Table) -> list[str]:
    """What was kept although it looks odd."""
    free = pc.and_(pc.equal(number_or_null(raw["UnitPrice"]), 0.0), pc.is_valid(_customer(raw)))
    n = pc.sum(free).as_py() or 0
    return [f"{n:,} lines of customers have a price of zero: kept, worth 0"] if n else []


ADAPTER = Adapter("online_retail", online_retail, COLUMNS, EventSchema(profile=("country",)), notes)
