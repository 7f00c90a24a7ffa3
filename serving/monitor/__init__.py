"""Records of served answers for monitoring.

bentoml_monitor: Rows through `bentoml.monitor`: to files of ours, or wherever BentoML's own configuration
    sends them.
files: Rows of a monitor on disk: JSON lines, a file a day and process, the oldest deleted when there are
    too many.
monitoring: Watching what is served: after an answer a row for `journeylab monitor`, without identifiers and
    event values.
"""
