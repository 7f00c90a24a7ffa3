"""Monitoring: served answers compared with the training reference, and with outcomes.

checks: The checks and their thresholds.
monitor: `monitor`: from recorded rows to a report.
outcomes: Calibration and rank order, once there are labels.
page: The page of `journeylab monitor`, and its table in a terminal.
report: The monitor report as frames and as JSON.
rows: Rows that the service recorded, and labels joined to them.
"""
