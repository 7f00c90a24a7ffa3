"""Simulated journeys with a known truth, and large plain logs for benchmarks.

large_log: A large plain event log in time order, for benchmarks: fast to make, bounded in memory, the same
    for the same seed.
simulator: Simulated journeys with a known truth: how well could any model do?
truth: The true probability of a label, given the hidden state and given the observed events alone.
world: The world behind simulated journeys: its constants, and the tables that the simulator and the filter
    share.
"""
