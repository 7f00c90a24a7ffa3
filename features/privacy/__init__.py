"""Keyed hashes and pseudonyms of customer identifiers.

keyed_hashes: Keyed hashes of identifiers (HMAC-SHA256, RFC 2104), and the files that hold their keys.
pseudonyms: Customers under keyed hashes: rows of one person can be joined; only the key says whose they are.
"""
