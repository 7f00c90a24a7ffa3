"""Scores for a log of events on each engine.

bulk: Scores of a log larger than memory, partition by partition of customers: `journeylab score …
    --partitions N`.
bulk_parts: The second pass of scoring in partitions: a partition's events packed, its customers scored, its
    part written.
bulk_plan: What a scoring run in partitions is, and the folder it lives in: what lies there goes on only
    where all of it fits.
bulk_quarantine: The rows that scoring in partitions set aside, in one CSV file beside the output, in the
    order of the log.
bulk_split: The first pass of scoring in partitions: the log, checked, in runs that hold each partition's
    events side by side.
scoring: Scores for a log of events: what `journeylab score` does.
spark_files: Folders that travel to a cluster's executors: a model, segments.
spark_scoring: Scores on Spark: `journeylab score … --engine spark --master …`.
"""
