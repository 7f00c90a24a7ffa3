"""Requests: parsed, checked, limited.

batch_tables: Arrow IPC streams and Parquet files from the network: read whole, within limits.
schemas: What a request may hold; parsed and checked in one pass, refused with one sentence.
"""
