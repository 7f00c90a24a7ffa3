"""The journey map's page: whole, escaped, small, offline, readable; and (slow) as a browser shows it."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from features.errors import DataError
from features.journey_map.comparison import compare
from features.journey_map.settings import MapSettings
from features.journey_map.tables import JourneyMap, journey_map
from features.journeys.packing import pack
from features.simulation.simulator import simulate
from training.journey_map.colours import touchpoint_colours
from training.journey_map.figures import cohorts, funnel, step_matrix
from training.journey_map.findings import findings
from training.journey_map.graph import backbone, levels, main_moves, place, wrapped
from training.journey_map.page import MapText, map_figures, map_page, write_map_page
from training.journey_map.pictures import draw_map
from training.reports.interactive import GROUPS, REST, THEMES, label, painted
from training.reports.pages import packed_plotly, render_page

EVIL = '<script>alert("x")</script> & %{x} <b>bold</b>'
SHARES = ("conversion", "converted_after", "bounce_share", "click_through", "csat", "nps", "converted_share")


def interval(frame: pd.DataFrame) -> pd.DataFrame:
    for name in [item for item in frame.columns if item in SHARES]:
        frame[f"{name}_low"], frame[f"{name}_high"] = frame[name] * 0.9, np.minimum(frame[name] * 1.1, 1)
    return frame


def invented(names: tuple[str, ...] = ("ad click", "product page", "cart", "order", "support call")) -> JourneyMap:
    """A map with every table filled, from figures that fit each other loosely."""
    n = len(names)
    stage = ["awareness", "consideration", "consideration", "purchase", "post-purchase"]
    touchpoints = pd.DataFrame(
        {
            "touchpoint": names,
            "channel": ["social", "web", "web", "web", "call centre"],
            "stage": stage,
            "customers": [900, 700, 300, 120, 40],
            "customer_share": [0.9, 0.7, 0.3, 0.12, 0.04],
            "visits": [1200, 2500, 420, 130, 61],
            "visits_per_customer": [1.3, 3.6, 1.4, 1.1, 1.5],
            "dwell_s_median": [3.0, 45.0, 60.0, 90.0, 400.0],
            "bounce_share": [0.4, 0.1, 0.05, 0.0, np.nan],
            "impressions": [4000, 0, 0, 0, 0],
            "clicks": [1200, 0, 0, 0, 0],
            "click_through": [0.3, np.nan, np.nan, np.nan, np.nan],
            "converted_after": [0.1, 0.15, 0.4, np.nan, 0.02],
            "csat": [np.nan, np.nan, np.nan, 0.8, 0.3],
            "nps": [np.nan] * n,
            "n_scores": [0, 0, 0, 100, 35],
        }
    )
    pairs = [
        ("start", 0),
        (0, 1),
        (1, 1),
        (1, 2),
        (2, 1),
        (2, 3),
        (3, 4),
        (1, "end"),
        (3, "end"),
        (4, "end"),
        (0, "end"),
    ]
    name = [*names]
    moves = pd.DataFrame(
        {
            "source": [item if isinstance(item, str) else name[item] for item, _ in pairs],
            "target": [item if isinstance(item, str) else name[item] for _, item in pairs],
            "count": [900, 650, 800, 310, 120, 118, 30, 500, 90, 40, 250],
        }
    )
    moves["probability"], moves["gap_s_median"], moves["customers"] = 0.5, 3600.0, moves["count"] // 2
    flows = pd.DataFrame(
        {
            "step": [1, 1, 2, 2, 2, 3],
            "source": [name[0], name[0], name[1], name[1], name[1], name[2]],
            "target": [name[1], "end", name[1], name[2], "end", name[3]],
            "customers": [650, 250, 300, 250, 100, 118],
        }
    )
    months = pd.to_datetime(["2024-01-01", "2024-02-01", "2024-03-01"])
    cohorts = pd.DataFrame(
        [
            (start, size, period, round(size * rate), rate, rate * 0.9, rate * 1.1)
            for place, (start, size) in enumerate(zip(months, (500, 300, 200), strict=True))
            for period, rate in enumerate((1.0, 0.4, 0.3)[: 3 - place])
        ],
        columns=["cohort", "size", "period", "active", "retention", "retention_low", "retention_high"],
    )
    steps = pd.DataFrame(
        np.full((n + 1, 8), 1 / (n + 1)), index=pd.Index([*names, "end"], name="touchpoint"), columns=range(1, 9)
    )
    pains = pd.DataFrame(
        {
            "rank": [1, 2],
            "kind": ["leave", "complain"],
            "touchpoint": [name[0], name[4]],
            "customers": [900, 40],
            "rate": [0.28, 0.5],
            "rest_rate": [0.1, 0.05],
            "difference": [0.18, 0.45],
            "difference_low": [0.15, 0.3],
            "difference_high": [0.21, 0.6],
            "p_value": [1e-9, 1e-6],
            "q_value": [2e-9, 1e-6],
            "sentence": [f"At {name[0]} 28% of customers leave, elsewhere 10%.", f"At {name[4]} half complain."],
        }
    )
    influence = pd.DataFrame(
        [
            ("channel", "social", 900, 0.8, 0.1, 0.4, 0.9, 0.5),
            ("channel", "web", 700, 0.2, 0.9, 0.6, 1.0, 0.5),
            *(("touchpoint", item, 300, 0.25, 0.25, 0.25, 0.4, 0.25) for item in names[:3]),
        ],
        columns=["level", "name", "customers", "first_touch", "last_touch", "linear", "removal_effect", "markov_share"],
    )
    paths = pd.DataFrame(
        {
            "rank": [1, 2],
            "path": [(name[0],), (name[0], name[1])],
            "text": [name[0], f"{name[0]} → {name[1]}"],
            "customers": [250, 200],
            "share": [0.25, 0.2],
            "converted_share": [0.0, 0.1],
            "days_median": [0.0, 2.5],
        }
    )
    funnel = pd.DataFrame(
        {
            "stage": ["awareness", "consideration", "purchase"],
            "customers": [1000, 700, 120],
            "share_of_first": [1.0, 0.7, 0.12],
            "conversion": [0.7, 0.17, np.nan],
            "dropped": [300, 580, 0],
            "days_to_next_p25": [0.1, 1.0, np.nan],
            "days_to_next_median": [0.5, 3.0, np.nan],
            "days_to_next_p75": [2.0, 9.0, np.nan],
        }
    )
    summary = {
        "customers": 1000, "events": 4311, "first": pd.Timestamp("2024-01-01 08:00"), "touchpoints": n, "channels": 3,
        "last": pd.Timestamp("2024-03-31 20:00"), "stages": 4, "median_events": 3.0, "median_span_days": 4.2,
        "converted": 120, "converted_share": 0.12,
    }  # fmt: skip
    return JourneyMap(
        summary=summary, notes=("No scores from 0 to 10: no net promoter score.",), funnel=interval(funnel),
        touchpoints=interval(touchpoints), transitions=moves, paths=interval(paths), step_matrix=steps, sankey=flows,
        cohorts=cohorts, pain_points=pains, influence=influence,
    )  # fmt: skip


TEXT = MapText("my log", "log.csv", ("order",))


class Reader(HTMLParser):
    """Tags and texts of a page, scripts and styles apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.hidden = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.hidden = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self.hidden = False

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.texts.append(data)

    def attributes_of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def strings(part: Any) -> list[str]:
    if isinstance(part, str):
        return [part]
    inside = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return [text for item in inside for text in strings(item)]


def test_page_is_small_and_offline(tmp_path: Path) -> None:
    written = write_map_page(invented(), tmp_path / "new" / "map.html", TEXT)
    assert written.stat().st_size < 5_000_000
    text = written.read_text(encoding="utf-8")
    read = Reader(text)
    assert [item for item in read.attributes_of("a") if not str(item["href"]).startswith("#")] == []
    assert [tag for tag, attrs in read.tags if "src" in attrs or tag in ("link", "iframe", "img", "object")] == []
    (policy,) = [
        item["content"] for item in read.attributes_of("meta") if item.get("http-equiv") == "Content-Security-Policy"
    ]
    assert str(policy).startswith("default-src 'none'")
    assert text == render_page(map_page(invented(), TEXT)), "the same map gives the same page"
    assert gzip.decompress(base64.b64decode(packed_plotly())).startswith(b"/**\n* plotly.js")
    ids = {attrs["id"] for _, attrs in read.tags if "id" in attrs}
    assert {str(item["href"])[1:] for item in read.attributes_of("a")} <= ids


def test_page_is_accessible() -> None:
    read = Reader(render_page(map_page(invented(), TEXT)))
    assert len(read.attributes_of("h1")) == 1
    assert (
        len(read.attributes_of("h2")) == len(read.attributes_of("section")) == len(map_page(invented(), TEXT).sections)
    )
    assert read.attributes_of("html")[0]["lang"] == "en"
    assert len(read.attributes_of("caption")) == len(read.attributes_of("table")) > 8
    assert {item["scope"] for item in read.attributes_of("th")} == {"col", "row"}
    pictures = [item for item in read.attributes_of("div") if "data-figure" in item]
    assert len(pictures) == 7
    assert all(item["role"] == "img" and item["aria-label"] for item in pictures)
    assert {item["id"] for item in read.attributes_of("input")} == {item["for"] for item in read.attributes_of("label")}


def test_names_are_escaped() -> None:
    drawn = invented((EVIL, "</script><script>1", "a\u202eb", r"$\frac{1}{2}$", "2011-01-01"))
    drawn.touchpoints.loc[0, "channel"] = EVIL
    drawn.influence.loc[0, "name"] = EVIL
    text = render_page(map_page(replace(drawn, notes=(EVIL,)), MapText(EVIL, EVIL, (EVIL,), notes=(EVIL,))))
    plain = render_page(map_page(invented(), TEXT))
    assert text.count("<script") == plain.count("<script")
    assert text.count("</script") == plain.count("</script")
    assert "alert(" in " ".join(Reader(text).texts), "it is shown, as text"
    assert "\u202e" not in text
    script = re.search(r'id="figures">(.*?)</script>', text)
    assert script is not None
    texts = [item for item in strings(json.loads(script.group(1))) if "alert" in item or "bold" in item]
    assert texts
    assert not [item for item in texts if re.search(r"<(?!br>)", item)], "plotly reads a little HTML"


def test_pictures_are_valid_plotly() -> None:
    graph_objects = pytest.importorskip("plotly.graph_objects")
    figures = map_figures(invented(), "month")
    assert list(figures) == list(map_page(invented(), TEXT).pictures) == [
        "funnel", "flows", "moves", "steps", "influence_channel", "influence_touchpoint", "cohorts",
    ]  # fmt: skip
    for figure in figures.values():
        for form in (figure.wide, figure.narrow):
            for theme in THEMES.values():
                graph_objects.Figure(painted({key: form[key] for key in ("data", "layout")}, theme))


def test_colour_contrast() -> None:
    for scheme in THEMES.values():
        assert contrast(scheme["ink"], scheme["paper"]) > 7
        assert contrast(scheme["muted"], scheme["paper"]) > 4.5
        assert all(contrast(scheme[f"g{place}"], scheme["paper"]) > 2 for place in range(6))
        assert len({scheme[f"g{place}"] for place in range(6)}) == 6


def contrast(item: str, other: str) -> float:
    """WCAG 2's ratio of two colours."""

    def light(colour: str) -> float:
        parts_of = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts_of]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    dark, bright = sorted((light(item), light(other)))
    return (bright + 0.05) / (dark + 0.05)


def test_findings_quote_the_tables() -> None:
    sentences = findings(invented(), ("order",))
    assert sentences[0].startswith("1,000 customers left 4,311 events at 5 touchpoints; a journey in the middle has 3")
    assert "120 customers (12%) reached the goal, which is order." in sentences
    assert any("most are lost between consideration and purchase: 580 (83%)" in item for item in sentences)
    assert any("At ad click 28% of customers leave" in item for item in sentences)
    assert any(
        "The channel that matters most by removal effect is social: without it, 90%" in item for item in sentences
    )
    assert any(item.startswith("Of 800 customers") and item.endswith("40% came back in it.") for item in sentences)
    assert any("Satisfaction is lowest at support call: 30% of 35 scores" in item for item in sentences)


def test_graph_layout() -> None:
    placed = place(main_moves(invented().transitions), 4, 7)
    assert (placed.names[int(np.argmin(placed.layer))], placed.names[int(np.argmax(placed.layer))]) == ("start", "end")
    assert len({*zip(placed.layer.tolist(), placed.across.tolist(), strict=True)}) == len(placed.names)
    assert np.bincount(placed.layer).max() <= 4
    many = pd.DataFrame({"source": "start", "target": [f"t{i}" for i in range(500)], "count": range(500, 0, -1)})
    assert len(main_moves(many)) == 24
    assert len(place(main_moves(many), 4, 7).names) == 26
    assert {("start", "ad click"), ("cart", "product page"), ("product page", "end")} < backbone(invented().transitions)
    assert levels(np.array([[0, 1.0], [1.0, 0]])).round(9).tolist() == [0, 0], "a cycle has no direction"
    assert wrapped("W_Completeren aanvraag", 17) == "W_Completeren<br>aanvraag"
    assert label("<b>" * 30, 12) == "&lt;b&gt;&lt;b&gt;…b&gt;&lt;b&gt;"


def test_colours_by_stage_or_touchpoint() -> None:
    frame = invented().touchpoints
    colours = touchpoint_colours(frame, ["awareness", "consideration", "purchase"])
    assert colours.legend(["cart", "end"]) == {GROUPS[1]: "consideration", REST: "other"}
    colours = touchpoint_colours(frame.assign(stage=None), [])
    assert colours.legend(["ad click"]) == {GROUPS[0]: "ad click"}


def test_long_tables_make_short_pictures() -> None:
    weeks = pd.date_range("2020-01-06", periods=150, freq="7D")
    rows = [(week, 9, period, 3, 1 / 3) for place, week in enumerate(weeks) for period in range(1, 150 - place)]
    frame = pd.DataFrame(rows, columns=["cohort", "size", "period", "active", "retention"])
    drawn = cohorts(frame, "week")
    assert len(drawn.wide["data"][0]["z"]) == 36
    assert drawn.wide["layout"]["height"] < 1200
    steps = step_matrix(pd.DataFrame(np.full((90, 200), 1 / 90), columns=range(1, 201)))
    assert len(steps.wide["data"][0]["z"]) == 20
    assert len(steps.wide["layout"]["xaxis"]["ticktext"]) <= 18


@pytest.fixture(scope="module")
def simulated() -> tuple[JourneyMap, Any]:
    journeys = pack(simulate(n_customers=150, days=200, seed=11).events)
    settings = MapSettings(goals=("subscribe",))
    half = np.arange(journeys.n_customers) % 2 == 0
    return journey_map(journeys, settings), compare(journeys, half, ~half, settings, names=("<even>", "odd"))


def test_page_of_a_comparison(simulated: tuple[JourneyMap, Any]) -> None:
    drawn, comparison = simulated
    text = render_page(map_page(drawn, MapText("demo", goals=("subscribe",)), comparison))
    assert "Compared: &lt;even&gt; and odd" in text
    assert "<even>" not in text
    assert len(text) < 5_000_000


def test_pictures_are_written(simulated: tuple[JourneyMap, Any], tmp_path: Path) -> None:
    drawn = draw_map(simulated[0], tmp_path / "a")
    assert {"funnel.png", "flows.png", "moves.png", "steps.png", "cohorts.png"} <= {item.name for item in drawn}
    odd = invented(("$x$", "50% _a_", "{b}", "a\nb", "e" * 200))
    names = {item.name for item in draw_map(replace(odd, transitions=odd.transitions.iloc[:0]), tmp_path / "b")}
    assert names == {
        "funnel.png", "flows.png", "steps.png", "influence_channel.png", "influence_touchpoint.png",
        "pain_points.png", "cohorts.png",
    }  # fmt: skip


MEASURE = """
const frame = document.getElementById("f");
const tell = () => {
  const page = frame.contentDocument;
  if (!page || !page.documentElement.dataset.drawn) return setTimeout(tell, 200);
  const boxes = [...page.querySelectorAll("[data-figure]")];
  document.getElementById("out").textContent = JSON.stringify({
    drawn: page.documentElement.dataset.drawn,
    wider: Math.max(0, page.documentElement.scrollWidth - page.documentElement.clientWidth),
    undrawn: boxes.filter((box) => !box.querySelector("svg.main-svg")).length,
  });
};
tell();
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [1280, 390])
def test_browser_draws_every_picture(simulated: tuple[JourneyMap, Any], tmp_path: Path, width: int) -> None:
    drawn, comparison = simulated
    write_map_page(drawn, tmp_path / "map.html", MapText("demo", goals=("subscribe",)), comparison)
    frame = f'<iframe id="f" src="map.html" style="width:{width}px;height:900px;border:0"></iframe>'
    (tmp_path / "frame.html").write_text(f"<!doctype html>{frame}<pre id=out></pre><script>{MEASURE}</script>")
    command = [
        "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'chromium'}",
        "--window-size=1400,1000", "--virtual-time-budget=20000", "--dump-dom", f"file://{tmp_path / 'frame.html'}",
    ]  # fmt: skip
    output = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout
    script = re.search(r'<pre id="out">(.*?)</pre>', output)
    assert script is not None
    assert json.loads(script.group(1)) == {"drawn": "yes", "wider": 0, "undrawn": 0}


def test_funnel_needs_stages() -> None:
    with pytest.raises(DataError, match=r"no stages to draw: give touchpoints a stage"):
        funnel(pd.DataFrame(columns=["stage", "customers", "conversion"]))
