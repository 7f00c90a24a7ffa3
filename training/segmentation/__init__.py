"""Segments of an experiment: fitted, explained, recorded.

page: The page about an experiment's segments: who they are, worth what, told how, where they go; one file,
    offline.
quality: Does a segment tell something about what comes? Its id against RFM cells of the same number, on
    held-out time.
rows: Which customers, at which moments, a segmentation is fitted on, compared with and checked on.
segmenting: From an experiment to segments in MLflow: fit, match with those in use, explain, check, record.
spark_segmenting: Segments of a log on Spark: `journeylab segment … --engine spark --master …`.
"""
