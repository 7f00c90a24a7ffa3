"""Served answers compared with the training reference, and with what came true.

checks: The checks of a monitor report: a champion's answers against the reference of its training, and what
    they found.
monitor: Is what is served like what was trained on? Rows of the service against the reference of the
    champion.
outcomes: What came true: calibration and rank order of served scores, once labels have arrived.
page: The page of `journeylab monitor`: alarms first, then every check, scores, days, versions, outcomes;
    opens offline.
rows: What the service recorded, read back: a frame of answers, counts of touchpoints, and labels joined to
    answers.
"""
