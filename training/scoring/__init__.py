"""Scores for a log of events on each engine: what `journeylab score` does.

partition_scores: A partition on disk packed, its customers scored, its part written.
partitioned: Scores of a log larger than memory, partition by partition of customers.
run_folder: The plan and the folder of a run in partitions: what an earlier attempt left is used if the plan agrees.
scoring: `score_file`: chooses the engine, writes the scores, reports.
spark_files: Folders that are sent to Spark's executors: a model, segments.
spark_scoring: Scores on Spark.
"""
