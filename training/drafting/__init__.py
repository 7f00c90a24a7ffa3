"""The draft of an experiment file from a log that nobody has described.

columns: Which column of a stranger's log is which: customer, time, touchpoint, value; by its name and by
    what is in it.
drafting: From a stranger's log to the draft of an experiment file: what `journeylab draft` does.
"""
