"""Tasks and their labels: what happens in `[cutoff, cutoff + horizon)` to the candidates at a cutoff.

churn: The task of churn by inactivity, and `churn_labels`.
conversion: The task of reaching a goal, and `conversion_labels`.
cutoffs: How cutoffs are written in an experiment file, and which moments and split they are on a log.
kernels: Compiled searches for touchpoints before and after a cutoff.
kinds: The list of kinds of task, and `read_task` for the `[task]` table.
label_table: The task of a label table that the user brings, and the checks of such a table.
plan: From a task and a log to labels, on any parts of a log or in memory.
task: The protocol of a task: settings, candidates, labels, answers, baselines, metrics, promotion, words.
windows: Events in a window before or after each cutoff.
"""
