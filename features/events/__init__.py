"""Event tables: read from files, converted by adapters, checked, with rejected rows in quarantine.

adapters: What an adapter is: a plain function from a user's raw table to canonical columns, and what it
    declares.
attributes: A table of static facts about customers, one row each, joined onto their events.
bpi2012: *BPI Challenge 2012*: the journey of a loan application through a bank; a customer is a case.
checks: The canonical event table: every row checked, bad ones set aside with a reason, nothing dropped in
    silence.
columns: One column of a user's table → the canonical column, with a mask of the rows that cannot be read.
files: Reading event files: Parquet, CSV, CSV.gz, TSV, and folders of them, whole or batch by batch.
formats: What a stranger's columns look like: how times are written, whether numbers have decimal commas.
    For errors, drafts.
online_retail: UCI *Online Retail*: one event an invoice line.
schema: The canonical event row: which columns there are, and of what kind.
source: From a user's file to journeys: which file, whose columns, which adapter; then the checks, then
    packing.
stages: Stages: a mapping from touchpoints that the experiment states, names or patterns, applied to events.
text_index: Text to whole numbers, in order of first appearance, exact and growing: the index behind packing
    and look-ups.
text_index_kernels: Compiled kernels that give texts their codes: a hash table over records in one flat
    array.
"""
