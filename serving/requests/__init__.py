"""Requests: decoded, checked, bounded.

batch_tables: Tables that come over the wire, Arrow IPC streams or Parquet: read whole, with bounds,
    trusting nothing in them.
schemas: What a request may hold and what an answer holds: decoded once, checked on the way, refused in one
    sentence.
"""
