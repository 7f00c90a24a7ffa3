"""Simulated journeys with a known truth, and large plain logs for benchmarks.

large_log: A large plain event log in time order, for benchmarks: fast, bounded in memory, seeded.
simulator: Simulated journeys with a known truth: `simulate`.
truth: The true probability of a label, given the hidden state and given the observed events alone.
world: The constants of the simulated world, and the tables that the simulator and the filter share.
"""
