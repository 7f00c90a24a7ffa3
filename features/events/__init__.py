"""Event tables: read from files, converted by adapters, checked, with rejected rows in quarantine.

adapter: What an adapter is: a plain function from a data set's raw table to canonical columns.
adapters: The list of adapters that an experiment file can name.
attributes: The profile table: static facts about customers, joined onto their events.
bpi2012: Adapter of *BPI Challenge 2012*: loan applications at a bank; a customer is a case.
checks: Checks of every event row; the quarantine of bad ones; the one error for a table that is no event log.
columns: One column of a user's table → the canonical column, with a mask of the rows that cannot be read.
files: Reading event files: Parquet, CSV, CSV.gz, TSV, and folders of them, whole or batch by batch.
formats: Formats recognised in text columns: how times are written, whether numbers have decimal commas.
online_retail: Adapter of UCI *Online Retail*: one event an invoice line.
schema: The canonical event row: which columns there are, and of what kind.
source: The `[events]` table of an experiment file: which file, which columns, which adapter.
stages: Stages: a mapping from touchpoints that the experiment states, applied to events.
table_reader: How rows are completed, checked and compared: one order for tables, streams, Spark and the service.
text_index: Text to whole numbers in order of first appearance: the index behind packing and look-ups.
text_index_kernels: Compiled kernels that give texts their codes: a hash table over records in one flat array.
"""
