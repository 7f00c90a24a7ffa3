"""The page about an experiment's segments: who they are, worth what, told how, where they go; one file, offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from models.segments.collection import SegmentCollection
from models.segments.insight.typical_journeys import journey_texts
from training.journey_map.page import shell
from training.journey_map.sections import Part
from training.reports.html import Column, escape, share, table

PROFILE = (
    Column("name", "Segment", "name"), Column("customers", "Customers"), Column("share", "Share", "share"),
    Column("growth", "Growth", "share"), Column("value_mean", "Value", "number"),
    Column("recency_days_median", "Days since last event", "number"), Column("events_median", "Events", "number"),
    Column("satisfaction", "Satisfaction", "number"),
)  # fmt: skip
RULES = (
    Column("segment", "Segment", "name"), Column("rule", "Rule in words", "said"), Column("found", "Finds", "share"),
    Column("right", "Is right", "share"),
)  # fmt: skip
EFFECTS = (
    Column("segment", "Segment", "name"), Column("words", "What sets it apart", "said"),
    Column("effect", "Effect size", "number"),
)  # fmt: skip
MIGRATION = (
    Column("from_name", "From", "name"), Column("to_name", "To", "name"), Column("customers", "Customers"),
    Column("share", "Share of those before", "share"),
)  # fmt: skip
HEALTH = (
    Column("segment", "Segment", "name"), Column("status", "Status", "text"), Column("sentence", "In words", "said"),
)  # fmt: skip
EFFECTS_SHOWN, MOVES_SHOWN, REACH = 3, 15, "by_"


def write_segment_page(
    path: Path,
    experiment: str,
    said: str,
    book: SegmentCollection,
    tables: Mapping[str, pd.DataFrame],
    metrics: Mapping[str, float],
    notes: Sequence[str],
) -> Path:
    """Write the page.

    Args:
        path: of the file.
        experiment: its name.
        said: who was segmented.
        book: the partitions, the main one first on the page.
        tables: "partition/table" → frame, as `training.segmentation.segmenting` makes them.
        metrics: of the main partition.
        notes: alarms and remarks.
    """
    main = book.main
    order = [main, *(scheme for scheme in book.partitions if scheme != main)]
    sections = [Part("notes", "What to know first", "", _listed([*_headlines(metrics), *notes]))]
    sections += [section for scheme in order for section in _sections(scheme, book, tables)]
    title = f"Segments: {experiment}"
    lead = f"<header><h1>{escape(title)}</h1><p>Of {escape(said)}. Intervals in brackets are 95 %.</p></header>"
    path.write_text(shell(title, lead, sections), encoding="utf-8")
    return path


def _headlines(metrics: Mapping[str, float]) -> list[str]:
    """The figures that a reviewer asks for first, as sentences."""
    told = []
    if "stability" in metrics:
        told.append(
            f"{metrics['segments']:.0f} segments were found; refitted on resampled customers they agree with an "
            f"adjusted Rand index of {metrics['stability']:.2f} (1 is the same, 0 is chance)."
        )
    if "rule_fidelity" in metrics:
        right = share(metrics["rule_fidelity"])
        told.append(f"A short rule says the segment of {right} of the customers that it did not see.")
    if "kept_share" in metrics:
        told.append(f"{share(metrics['kept_share'])} of the customers kept the segment they had at the last fit.")
    if "test_log_loss_segment" in metrics:
        better = metrics["test_log_loss_difference_high"] < 0
        told.append(
            f"On held-out time the segment alone predicts the outcome with a log loss of "
            f"{metrics['test_log_loss_segment']:.4f}, as many RFM cells with {metrics['test_log_loss_rfm_cells']:.4f}"
            f"{', surely better' if better else ''}."
        )
    return told


def _sections(scheme: str, book: SegmentCollection, tables: Mapping[str, pd.DataFrame]) -> list[Part]:
    """All about one partition."""
    own = {name.partition("/")[2]: frame for name, frame in tables.items() if name.startswith(f"{scheme}/")}
    profiles = own["profiles"]
    rates = [
        Column(str(name), f"{str(name).removesuffix('_rate').replace('_', ' ').capitalize()} rate", "share")
        for name in profiles.columns
        if str(name).endswith("_rate")
    ]
    sections = [
        Part(f"{scheme}", f"{_title(scheme)}: the segments", "", _who(book, scheme) + table(
            profiles, (*PROFILE, *rates), "Each segment with its size, growth, value and rates."))
    ]  # fmt: skip
    if "health" in own:
        sections.append(Part(f"{scheme}-health", "Against the goals", "", table(own["health"], HEALTH, "Goals.")))
    if len(own.get("effects", ())):
        top = own["effects"].groupby("segment_id", sort=False).head(EFFECTS_SHOWN)
        how = "Effect sizes are Cliff's delta: 1 or −1 parts the segment from the rest completely, 0 not at all."
        sections.append(Part(f"{scheme}-effects", f"{_title(scheme)}: what sets them apart", how, table(
            top, EFFECTS, "The strongest differences between each segment and all others.")))  # fmt: skip
    if "rules" in own:
        sections.append(Part(f"{scheme}-rules", f"{_title(scheme)}: a rule for each", "", table(
            own["rules"], RULES, "A short decision tree, read in words.")))  # fmt: skip
    if len(own.get("journeys", ())):
        sections.append(Part(f"{scheme}-journeys", f"{_title(scheme)}: typical journeys", JOURNEYS, _journeys(
            own["journeys"])))  # fmt: skip
    targets = own["targets"]
    ways = [Column(str(name), f"By {str(name).removeprefix(REACH)}", "share") for name in targets if REACH in str(name)]
    chosen = (*PROFILE[:4], Column("value_total", "Value in all", "number"), Column("reachable", "Reachable", "share"))
    sections.append(Part(f"{scheme}-targets", f"{_title(scheme)}: whom to address", "", table(
        targets, (*chosen, *ways, Column("words", "In words", "said")), "By reachable value.")))  # fmt: skip
    moves = own["migration"]
    moved = moves[moves["from_name"] != moves["to_name"]].sort_values("customers", ascending=False)
    how = "From the moment of the fit to the held-out one, the largest moves first."
    sections.append(Part(f"{scheme}-moves", f"{_title(scheme)}: who moved", how, table(
        moved, MIGRATION, "Customers who changed their segment.", most=MOVES_SHOWN)))  # fmt: skip
    return sections


JOURNEYS = "Real journeys nearest to the middle of each segment, without identifiers, dates or exact values."


def _who(book: SegmentCollection, scheme: str) -> str:
    told = (
        f"<dt>{escape(one.name)} <small>{escape(one.id)}</small></dt><dd>{escape(one.words)}</dd>"
        for one in book.partitions[scheme].segments
    )
    return f"<dl>{''.join(told)}</dl>"


def _journeys(frame: pd.DataFrame) -> str:
    names = dict(zip(frame["segment_id"], frame["segment"], strict=True))
    told = []
    for segment, texts in journey_texts(frame).items():
        items = "".join(f"<li>{' → '.join(escape(line) for line in text.splitlines())}</li>" for text in texts)
        told.append(f"<h3>{escape(names[segment])}</h3><ol>{items}</ol>")
    return "".join(told)


def _listed(sentences: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(one)}</li>' for one in sentences)}</ul>"


def _title(scheme: str) -> str:
    return "RFM" if scheme == "rfm" else scheme.replace("_", " ").capitalize()
