"""What reviewers read: model cards, pictures, HTML pages.

blocks: What a page is made of, as data: tables, sentences, terms, bars, intervals.
interactive: Interactive pictures as plain data for plotly: colour schemes, labels, filters, the Sankey's layout.
model_card: The model card: what a model is, for whom, how good, where it fails, as Markdown.
numbers: Names and numbers as people read them.
pages: Pages that open offline, rendered from the Jinja2 templates in `templates/`.
picture_style: The one style of every picture: background, ink, colours, legends and labels.
pictures: Pictures of an evaluation: one style, stable file names, several models in one picture.
stills: Interactive pictures as PNG: matplotlib draws the very data that plotly draws.
"""
