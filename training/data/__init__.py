"""Labelled snapshots: rows to train on, validation folds, provenance, and features written to Parquet.

landed_rows: LightGBM's data set from the features that `journeylab features` landed, a row group in memory
    at a time.
landing: Labelled snapshots with their features as Parquet, for models that stream from disk: `journeylab
    features`.
open_log: The event log on the engine that options name, or that its size asks for.
provenance: Where a run comes from: fingerprints, code, machine, packages and experiment; its tags and note.
splits: Validation folds inside train: customers apart and later cutoffs, and what the horizons still share.
task_data: The rows of an experiment, ready to train on: snapshots, labels and folds.
"""
