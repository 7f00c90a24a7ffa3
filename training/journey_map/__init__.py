"""The journey map's page, pictures and command.

figures: The journey map's plainer interactive pictures: funnel, grids, dots for influence and for two
    groups.
findings: The journey map's main findings in words: each sentence is made from the tables, with its figures.
graph: The transition graph: where its touchpoints stand, from left to right, and its picture with a filter
    for rare moves.
groups: The two groups of customers that a journey map compares: converted or not, before and after a date,
    by a column.
mapping: From an event log or an experiment file to the journey map's page: what `journeylab map` does.
page: The journey map as one HTML page that opens offline: findings in words, interactive pictures, tables.
pictures: The journey map's main pictures as PNG, in the style of all pictures: for MLflow, reports and
    slides.
ribbons: The Sankey of a journey map in matplotlib: bars of touchpoints at each step, ribbons of customers
    between them.
sankey: The journey map's Sankey: streams of customers from step to step, as plain plotly data.
sections: The sections of the journey map's page, one function each: how to read it, its picture, its table.
spark_mapping: The journey map on Spark: `journeylab map … --engine spark --master …`; the page and tables
    are those of one machine.
theme: What the journey map's interactive pictures share: two colour schemes, sizes, escaped labels,
    filters.
words: The words of the journey map's page: columns, how to read each section, what terms mean, two groups
    compared.
"""
