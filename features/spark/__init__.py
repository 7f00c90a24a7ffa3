"""The event log on Spark: reading, blocks of whole customers, tasks, results.

blocks: What a partition of a cluster does with its rows: checks and packs them block by block, writes
    blocks, reads them.
destinations: Results of a cluster that go to no folder of this machine: to a URI that Spark writes to, or
    to a table.
log: A log on Spark: blocks of whole customers, read by the same functions as on one machine.
reading: Read a log on Spark: rename the columns, hash the customers, shuffle the rows.
session: A Spark session as this package needs it, or one sentence that says what to install.
source: Where Spark reads a log from, and how the order of its rows is known: files, folders, tables,
    Delta-style folders.
tasks: The tasks of an executor: build blocks, apply a function to them, write its results.
"""
