"""The draft of an experiment file for a log that nobody has described.

columns: Which column is the customer, time, touchpoint or value, by its name and its contents.
drafting: From a log to the draft of an experiment file: `journeylab draft`.
"""
