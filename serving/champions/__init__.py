"""The packaged models and their vectors.

champions: The packaged models: where they came from, by which routes they are asked, what they read.
nearest: Look-alikes in the service: the customers nearest to a list, or to a journey, under keyed hashes.
"""
