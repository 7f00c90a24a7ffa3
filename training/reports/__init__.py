"""What reviewers read: model cards, pictures, HTML tables.

html: HTML of the journey map's tables: escaped names, numbers with units, intervals, headers for a screen
    reader.
model_card: The model card: what a model is, for whom, how good, where it fails and what it must not be used
    for, as Markdown.
picture_style: The one style of every picture: paper, ink, colours, keys and labels.
    `training.reports.pictures` draws with it.
pictures: Pictures of an evaluation for the reviewer: one style, stable file names, several models in one
    picture.
"""
