"""Answers to one customer, to many, and micro-batches.

answers: What the service says about one customer: by one champion, or by all with the events packed a
    single time.
batches: Many customers in one call: events in as JSON, Arrow or Parquet, answers out as JSON, NDJSON or
    Arrow, in blocks.
micro_batches: Requests that arrive together are answered together: eight journeys cost little more than
    one.
"""
