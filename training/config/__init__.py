"""What an experiment file says: sources, tasks, models, segments, reports, engines.

engines: On which engine a command runs: this machine, or Spark, with its master and settings.
experiment: An experiment: one TOML file that says where the events are, what to predict, and how long to
    search.
report_settings: What the reviewer is shown beside the figures: the `[report]` table of an experiment file.
segment_settings: The `[segments]` section of an experiment file: which partitions there are, which is the
    main one, and the goals.
tasks: What is to be predicted: churn, conversion, or the user's own label table; for whom, and at which
    cutoffs.
"""
