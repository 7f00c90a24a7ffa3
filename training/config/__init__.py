"""The experiment file: events, task, models, search, segments, reports, engine.

engines: The engine of a command: this machine, or Spark with its master and settings.
experiment: An experiment: one TOML file with the events, the task, the models and the search.
report_settings: The `[report]` table: what a reviewer sees beside the metrics.
segment_settings: The `[segments]` table: the partitions, the main one, and the goals.
"""
