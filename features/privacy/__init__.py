"""Keyed hashes and pseudonyms of customer identifiers.

keyed_hashes: Keyed hashes of identifiers (HMAC-SHA256, RFC 2104), and the files that hold their keys.
pseudonyms: Customers under keyed hashes: rows that belong to one person can be joined, and told to whom
    only with the key.
"""
