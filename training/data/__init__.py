"""Labelled snapshots: label tables, splits, records of provenance, features written to Parquet.

landed_rows: LightGBM's data set from the features that `journeylab features` landed, a row group in memory
    at a time.
landing: Labelled snapshots with their features as Parquet, for models that stream from disk: `journeylab
    features`.
records: What every run records about where it came from: data, rows, code, machine, experiment; and the
    reviewer's note.
splits: Validation folds inside train: customers apart and later cutoffs, and what the horizons still share.
"""
