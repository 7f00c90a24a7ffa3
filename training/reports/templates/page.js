// The page's own script: unpacks plotly.js, draws every picture for this width and colour scheme, filters, sorts.
"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 700px)");
  const themes = JSON.parse(document.getElementById("themes").textContent);
  const levels = {}; // figure -> the place of its slider

  // Colours are written as "\u0001name" and stand for one colour in light and another in dark.
  const painted = (part, theme) => {
    if (typeof part === "string") return part[0] === "\u0001" ? theme[part.slice(1)] : part;
    if (Array.isArray(part)) return part.map((one) => painted(one, theme));
    if (part === null || typeof part !== "object") return part;
    return Object.fromEntries(Object.entries(part).map(([key, one]) => [key, painted(one, theme)]));
  };

  const chosen = (part, keeps) =>
    Object.fromEntries(
      Object.entries(part).map(([key, one]) => [key, Array.isArray(one) ? one.filter((_, i) => keeps(i)) : one]),
    );

  // plotly forgets bars without streams and then mistakes one place for another: they are taken out here.
  const streams = (trace, least, middles) => {
    const kept = chosen(trace.link, (i) => trace.link.value[i] >= least);
    const used = [...new Set([...kept.source, ...kept.target])].sort((a, b) => a - b);
    const node = chosen({ ...trace.node, y: middles }, (i) => used.includes(i));
    const now = (ends) => ends.map((end) => used.indexOf(end));
    return { ...trace, link: { ...kept, source: now(kept.source), target: now(kept.target) }, node };
  };

  const filtered = (figure, form, name) => {
    const level = figure.filter ? (levels[name] ?? figure.filter.first) : 0;
    const least = figure.filter ? figure.filter.levels[level] : 0;
    return form.data.map((trace) => {
      if (trace.type === "sankey") return streams(trace, least, form.middles[level]);
      return trace.meta === undefined ? trace : { ...trace, visible: trace.meta >= least };
    });
  };

  const draw = async (name) => {
    const box = document.querySelector(`[data-figure="${name}"]`);
    const figure = figures[name];
    const form = painted(narrow.matches ? figure.narrow : figure.wide, themes[dark.matches ? "dark" : "light"]);
    const layout = { ...form.layout, autosize: true };
    box.classList.remove("waiting");
    box.style.minHeight = `${layout.height}px`;
    box.style.minWidth = form.least ? `${form.least}px` : "";
    if (box.firstChild && !box.firstChild.className) box.textContent = "";
    await Plotly.react(box, filtered(figure, form, name), layout, { displayModeBar: false, responsive: true });
  };

  const drawAll = async () => {
    for (const name of Object.keys(figures)) {
      try {
        await draw(name);
      } catch (error) {
        document.querySelector(`[data-figure="${name}"]`).textContent = `This picture could not be drawn: ${error}`;
      }
    }
    document.documentElement.dataset.drawn = "yes";
  };

  const unpack = async () => {
    const packed = atob(document.getElementById("plotly").textContent.trim());
    const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  };

  const tell = (sentence) => {
    for (const box of document.querySelectorAll("[data-figure]")) box.textContent = sentence;
    document.documentElement.dataset.drawn = "no";
  };

  const sortBy = (head) => {
    const table = head.closest("table");
    const place = [...head.parentNode.children].indexOf(head);
    const down = head.getAttribute("aria-sort") !== "descending";
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const worth = (row) => {
      const cell = row.children[place];
      return "value" in cell.dataset ? Number(cell.dataset.value || "NaN") : cell.textContent;
    };
    const rows = [...table.tBodies[0].rows].map((row) => [worth(row), row]);
    rows.sort(([a], [b]) => {
      if (typeof a === "string") return down ? b.localeCompare(a) : a.localeCompare(b);
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
      return down ? b - a : a - b;
    });
    for (const [, row] of rows) table.tBodies[0].append(row);
  };

  for (const slider of document.querySelectorAll("input[data-filter]")) {
    const name = slider.dataset.filter;
    const told = document.querySelector(`output[data-of="${name}"]`);
    slider.addEventListener("input", () => {
      levels[name] = Number(slider.value);
      told.textContent = figures[name].filter.levels[levels[name]].toLocaleString("en");
      if (window.Plotly) draw(name);
    });
  }
  for (const button of document.querySelectorAll("thead button")) {
    button.addEventListener("click", () => sortBy(button.closest("th")));
  }

  const begin = async () => {
    if (!Object.keys(figures).length) {
      document.documentElement.dataset.drawn = "yes";
      return;
    }
    if (!("DecompressionStream" in window)) {
      tell("This browser is too old to unpack the pictures. The tables of this page hold the same numbers.");
      return;
    }
    try {
      await unpack();
    } catch (error) {
      tell(`The pictures could not be unpacked (${error}). The tables of this page hold the same numbers.`);
      return;
    }
    await drawAll();
    narrow.addEventListener("change", drawAll);
    dark.addEventListener("change", drawAll);
  };
  begin();
})();
