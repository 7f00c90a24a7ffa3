"""The journey map's page, pictures and command.

colours: Colours of touchpoints: one for each stage, or for the touchpoints that most customers meet.
figures: The plainer interactive pictures: funnel, grids, dots for influence, pain points and two groups.
findings: The main findings in words: each sentence is made from the tables.
graph: The transition graph: where its touchpoints stand, and its picture with a filter for rare moves.
groups: The two groups of customers that a map compares.
mapping: From an event log or an experiment file to the page: what `journeylab map` does.
page: The page: findings, pictures, tables.
pictures: The same pictures as PNG: for MLflow, reports and slides.
sankey: The Sankey: streams of customers from step to step.
words: The words of the page: columns, how to read each section, what terms mean.
"""
