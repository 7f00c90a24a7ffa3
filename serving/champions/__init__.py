"""The packaged models and the search for look-alikes.

champions: The packaged models: where they came from, by which routes they are asked, what they read.
lookalike_search: The customers nearest to a list or to a journey, under keyed hashes.
"""
