"""Records of served answers for monitoring.

bentoml_monitor: Rows through `bentoml.monitor`: to our files, or wherever BentoML's configuration sends them.
files: Rows as JSON lines, a file for each day and process; the oldest are deleted at the limit.
monitoring: A row for each answer, or for a sample of them, without identifiers and values of events.
"""
