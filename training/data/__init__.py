"""Labelled snapshots: label tables, splits, records of provenance, features written to Parquet.

label_build: From a task and a log to the label table with its split, or to the figures that speak against
    it.
label_parts: Labels of a log in parts: what is global is decided once, then every part labels its own
    customers.
landed_rows: LightGBM's data set from the features that `journeylab features` landed, a row group in memory
    at a time.
landing: Labelled snapshots with their features as Parquet, for models that stream from disk: `journeylab
    features`.
records: What every run records about where it came from: data, rows, code, machine, experiment; and the
    reviewer's note.
splits: Validation folds inside train: customers apart and later cutoffs, and what the horizons still share.
"""
