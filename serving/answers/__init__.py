"""Answers to one customer, to many, and micro-batches; nothing here knows of HTTP.

answers: Answers of one champion or of all to one customer, or to a micro-batch.
batches: Many customers in one call: JSON, Arrow or Parquet in; JSON, NDJSON or Arrow out, in blocks.
micro_batches: Requests that arrive at the same time share one call.
"""
