"""Events, journeys, snapshots, labels and their representations, correct at a point in time.

errors: Errors for people: each message says what is wrong, where, and what to do; suggestions for misspelt names.
kernel_cache: The cache of compiled kernels: keyed by their source, not by its path.
settings: Tables of an experiment file: pydantic models that refuse unknown keys and name the right one.
statistics: Intervals and tests: shares, differences of shares, net promoter score, q-values.
timestamps: Moments of any kind → µs since 1970 UTC, the one clock inside.
conditions/: Conditions on snapshots that a marketer writes, and the measures that they compare.
events/: Event tables: read from files, converted by adapters, checked, with rejected rows in quarantine.
journey_map/: The journey map: tables of stages, flows, paths, touchpoints, pain points and influence.
journeys/: Packed journeys and snapshots: the event log as flat columns sorted by customer and time.
labels/: Labels: what happened between a cutoff and its horizon, and for which candidates.
privacy/: Keyed hashes and pseudonyms of customer identifiers.
sequences/: Sequence representations: journeys as ragged batches of steps.
simulation/: Simulated journeys with a known truth, and large plain logs for benchmarks.
spark/: The event log on Spark: reading, blocks of whole customers, tasks, results.
tabular/: Tabular features: one row of numbers a snapshot.
"""
