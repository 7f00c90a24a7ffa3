"""The page about an experiment's segments: who they are, worth what, told how, where they go; one file, offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from models.segments.collection import SegmentCollection
from models.segments.insight.typical_journeys import journey_texts
from training.reports.blocks import Heading, PageBlock, PageColumn, Sentences, Table, Terms
from training.reports.numbers import share
from training.reports.pages import Page, PageSection, write_page

PROFILE = (
    PageColumn("name", "Segment", "name"), PageColumn("customers", "Customers"),
    PageColumn("share", "Share", "share"), PageColumn("growth", "Growth", "share"),
    PageColumn("value_mean", "Value", "number"), PageColumn("recency_days_median", "Days since last event", "number"),
    PageColumn("events_median", "Events", "number"), PageColumn("satisfaction", "Satisfaction", "number"),
)  # fmt: skip
RULES = (
    PageColumn("segment", "Segment", "name"), PageColumn("rule", "Rule in words", "sentence"),
    PageColumn("found", "Finds", "share"), PageColumn("right", "Is right", "share"),
)  # fmt: skip
EFFECTS = (
    PageColumn("segment", "Segment", "name"), PageColumn("words", "What sets it apart", "sentence"),
    PageColumn("effect", "Effect size", "number"),
)  # fmt: skip
MIGRATION = (
    PageColumn("from_name", "From", "name"), PageColumn("to_name", "To", "name"),
    PageColumn("customers", "Customers"), PageColumn("share", "Share of those before", "share"),
)  # fmt: skip
HEALTH = (
    PageColumn("segment", "Segment", "name"), PageColumn("status", "Status", "text"),
    PageColumn("sentence", "In words", "sentence"),
)  # fmt: skip
MOST_EFFECTS, MOST_MOVES, REACH = 3, 15, "by_"


def write_segment_page(
    path: Path,
    experiment: str,
    customers: str,
    segments: SegmentCollection,
    tables: Mapping[str, pd.DataFrame],
    metrics: Mapping[str, float],
    notes: Sequence[str],
) -> Path:
    """Write the page.

    Args:
        path: of the file.
        experiment: its name.
        customers: who was segmented, in words.
        segments: the partitions, the main one first on the page.
        tables: "partition/table" → frame, as `training.segmentation.segmenting` makes them.
        metrics: of the main partition.
        notes: alarms and remarks.
    """
    schemes = [segments.main, *(scheme for scheme in segments.partitions if scheme != segments.main)]
    sections = [PageSection("notes", "What to know first", [Sentences([*_headlines(metrics), *notes])])]
    sections += [section for scheme in schemes for section in _sections(scheme, segments, tables)]
    lead = f"Of {customers}. Intervals in brackets are 95 %."
    return write_page(Page(f"Segments: {experiment}", sections, lead), path)


def _headlines(metrics: Mapping[str, float]) -> list[str]:
    """The figures that a reviewer asks for first, as sentences."""
    sentences = []
    if "stability" in metrics:
        sentences.append(
            f"{metrics['segments']:.0f} segments were found; refitted on resampled customers they agree with an "
            f"adjusted Rand index of {metrics['stability']:.2f} (1 is the same, 0 is chance)."
        )
    if "rule_fidelity" in metrics:
        right = share(metrics["rule_fidelity"])
        sentences.append(f"A short rule says the segment of {right} of the customers that it did not see.")
    if "kept_share" in metrics:
        sentences.append(f"{share(metrics['kept_share'])} of the customers kept the segment they had at the last fit.")
    if "test_log_loss_segment" in metrics:
        better = metrics["test_log_loss_difference_high"] < 0
        sentences.append(
            f"On held-out time the segment alone predicts the outcome with a log loss of "
            f"{metrics['test_log_loss_segment']:.4f}, as many RFM cells with {metrics['test_log_loss_rfm_cells']:.4f}"
            f"{', surely better' if better else ''}."
        )
    return sentences


def _sections(scheme: str, segments: SegmentCollection, tables: Mapping[str, pd.DataFrame]) -> list[PageSection]:
    """All about one partition."""
    frames = {name.partition("/")[2]: frame for name, frame in tables.items() if name.startswith(f"{scheme}/")}
    label = "RFM" if scheme == "rfm" else scheme.replace("_", " ").capitalize()

    def section(suffix: str, title: str, blocks: Sequence[PageBlock], how: str = "") -> PageSection:
        return PageSection(f"{scheme}{suffix}", title, blocks, how)

    profiles = frames["profiles"]
    rates = [
        PageColumn(str(name), f"{str(name).removesuffix('_rate').replace('_', ' ').capitalize()} rate", "share")
        for name in profiles.columns
        if str(name).endswith("_rate")
    ]
    terms = Terms([(segment.name, segment.id, segment.words) for segment in segments.partitions[scheme].segments])
    caption = "Each segment with its size, growth, value and rates."
    sections = [section("", f"{label}: the segments", [terms, Table(profiles, (*PROFILE, *rates), caption)])]
    if "health" in frames:
        sections.append(section("-health", "Against the goals", [Table(frames["health"], HEALTH, "Goals.")]))
    if len(frames.get("effects", ())):
        top = frames["effects"].groupby("segment_id", sort=False).head(MOST_EFFECTS)
        how = "Effect sizes are Cliff's delta: 1 or −1 parts the segment from the rest completely, 0 not at all."
        effects = Table(top, EFFECTS, "The strongest differences between each segment and all others.")
        sections.append(section("-effects", f"{label}: what sets them apart", [effects], how))
    if "rules" in frames:
        rules = Table(frames["rules"], RULES, "A short decision tree, read in words.")
        sections.append(section("-rules", f"{label}: a rule for each", [rules]))
    if len(frames.get("journeys", ())):
        blocks = _journeys(frames["journeys"])
        sections.append(section("-journeys", f"{label}: typical journeys", blocks, JOURNEYS))
    targets = Table(frames["targets"], _target_columns(frames["targets"]), "By reachable value.")
    sections.append(section("-targets", f"{label}: whom to address", [targets]))
    moves = frames["migration"]
    moved = moves[moves["from_name"] != moves["to_name"]].sort_values("customers", ascending=False)
    how = "From the moment of the fit to the held-out one, the largest moves first."
    migration = Table(moved, MIGRATION, "Customers who changed their segment.", MOST_MOVES)
    return [*sections, section("-moves", f"{label}: who moved", [migration], how)]


def _target_columns(targets: pd.DataFrame) -> list[PageColumn]:
    ways = [
        PageColumn(str(name), f"By {str(name).removeprefix(REACH)}", "share") for name in targets if REACH in str(name)
    ]
    reach = (PageColumn("value_total", "Value in all", "number"), PageColumn("reachable", "Reachable", "share"))
    return [*PROFILE[:4], *reach, *ways, PageColumn("words", "In words", "sentence")]


JOURNEYS = "Real journeys nearest to the middle of each segment, without identifiers, dates or exact values."


def _journeys(frame: pd.DataFrame) -> list[PageBlock]:
    names = dict(zip(frame["segment_id"], frame["segment"], strict=True))
    blocks: list[PageBlock] = []
    for segment, texts in journey_texts(frame).items():
        journeys = [" → ".join(text.splitlines()) for text in texts]
        blocks += [Heading(names[segment]), Sentences(journeys, ordered=True)]
    return blocks
