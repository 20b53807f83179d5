"use strict";
// The curves, to be looked at: the figure of the file gives way to one with a pointer, boxes and logarithmic axes.
(() => {
  const MARKS = {o: "●", s: "■", "^": "▲", D: "◆", v: "▼", "<": "◀", ">": "▶", p: "⬟", X: "✖", "*": "★", P: "✚", d: "♦", h: "⬢"};
  const element = (name, parent, text, attributes) => {
    const made = parent.appendChild(document.createElement(name));
    if (text) made.textContent = text;
    for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
    return made;
  };
  // A line read at other places: between its points straight, outside them nothing.
  const readAt = (xs, ys, grid) => {
    let at = 0;
    return grid.map(x => {
      if (x < xs[0] || x > xs[xs.length - 1]) return null;
      while (at < xs.length - 2 && xs[at + 1] < x) at++;
      if (xs.length === 1) return ys[0];
      const width = xs[at + 1] - xs[at];
      return width ? ys[at] + (ys[at + 1] - ys[at]) * (x - xs[at]) / width : ys[at];
    });
  };
  const show = (box, data, number) => {
    const first = Object.keys(data.axes)[0];
    const state = {axis: first, x: (data.logarithmic || []).includes(first), y: false, hidden: new Set()};
    const form = element("form", box, "", {class: "filters", "aria-label": `Axes of figure ${number + 1}`});
    form.addEventListener("submit", event => event.preventDefault());
    const id = `curves-${number}`;
    const chosen = element("div", form);
    element("label", chosen, "Spent", {for: `${id}-axis`});
    const select = element("select", chosen, "", {id: `${id}-axis`});
    for (const [name, label] of Object.entries(data.axes)) element("option", select, label, {value: name});
    const tick = (text, on, change) => {
      const label = element("label", form, "", {class: "tick"});
      const input = element("input", label, "", {type: "checkbox"});
      input.checked = on;
      label.append(` ${text}`);
      input.addEventListener("change", () => { change(input.checked); draw(); });
    };
    const place = element("div", box, "", {class: "plot"});
    const list = element("ul", box, "", {class: "legend", "aria-label": `Lines of figure ${number + 1}`});
    const values = data.lines.map((line, index) => {
      const item = element("li", list), label = element("label", item);
      const input = element("input", label, "", {type: "checkbox"});
      input.checked = true;
      const swatch = element("span", label, "", {class: "swatch", "aria-hidden": "true"});
      swatch.style.color = line.colour;
      swatch.style.borderStyle = line.dash.length ? "dashed" : "solid";
      swatch.dataset.mark = MARKS[line.mark] || "";
      label.append(line.label);
      input.addEventListener("change", () => { state.hidden[input.checked ? "delete" : "add"](index); draw(); });
      return element("output", item);
    });
    let plot = null;
    const draw = () => {
      if (plot) plot.destroy();
      const lines = data.lines.map((line, index) => ({...line, index, at: line.on[state.axis]}))
        .filter(line => line.at && !state.hidden.has(line.index));
      const positive = x => !state.x || x > 0;
      const grid = [...new Set(lines.flatMap(line => line.at.x.filter(positive)))].sort((a, b) => a - b);
      const series = [{label: data.axes[state.axis]}], columns = [grid], bands = [], of = [null];
      const own = (values_, log) => log ? values_.map(value => value > 0 ? value : null) : values_;
      for (const line of lines) {
        const look = {stroke: line.colour, width: line.mark ? 2 : 1, dash: line.at.dash && line.at.dash.length ? line.at.dash : line.dash, points: {show: false}, spanGaps: true};
        const first = series.length;
        series.push({label: line.label, ...look});
        columns.push(own(readAt(line.at.x, line.at.y, grid), state.y));
        of.push(line.index);
        if (line.mark && line.at.high.some((value, at) => value > line.at.low[at])) {
          for (const edge of ["high", "low"]) {
            series.push({stroke: "transparent", width: 0, points: {show: false}, spanGaps: true});
            columns.push(own(readAt(line.at.x, line.at[edge], grid), state.y));
            of.push(null);
          }
          bands.push({series: [first + 1, first + 2], fill: `${line.colour}26`});
        }
      }
      if (data.teacher !== null) {
        series.push({label: "teacher", stroke: "#666666", width: 1, dash: [6, 4], points: {show: false}});
        columns.push(grid.map(() => data.teacher));
        of.push(null);
      }
      const axis = {font: "12px system-ui, sans-serif", stroke: "#4a4f55", grid: {stroke: "#e6e6e6", width: 1}, ticks: {show: false}};
      const number_ = value => value === null ? "" : value.toLocaleString("en", {maximumFractionDigits: value < 10 ? 2 : 0});
      plot = new uPlot({
        width: Math.max(280, place.clientWidth), height: Math.min(460, Math.max(300, innerHeight * .5)),
        scales: {x: {time: false, distr: state.x ? 3 : 1, range: (_, low, high) => low < high ? [low, high] : [low * .5, low * 2 || 1]}, y: {distr: state.y ? 3 : 1}},
        series, bands,
        axes: [
          {...axis, label: data.axes[state.axis], labelFont: axis.font, values: (_, found) => found.map(number_)},
          {...axis, label: data.score, labelFont: axis.font, size: 50, values: (_, found) => found.map(number_)},
        ],
        legend: {show: false},
        cursor: {focus: {prox: 24}, drag: {x: true, y: false}},
        focus: {alpha: .25},
        hooks: {draw: [u => {
          u.ctx.save();
          u.ctx.font = `${14 * devicePixelRatio}px system-ui, sans-serif`;
          u.ctx.textAlign = "center";
          u.ctx.textBaseline = "middle";
          lines.forEach(line => {
            const last = line.at.x.length - 1, dots = line.at.dots || [[line.at.x[last], line.at.y[last]]];
            if (!line.mark && !line.at.dots) return;
            u.ctx.fillStyle = line.colour;
            u.ctx.strokeStyle = line.colour;
            u.ctx.lineWidth = devicePixelRatio;
            for (const [x, y, filled = 1] of dots) {
              if (x < u.scales.x.min || x > u.scales.x.max || y > u.scales.y.max || y < u.scales.y.min) continue;
              const place_ = [MARKS[line.mark] || "●", u.valToPos(x, "x", true), u.valToPos(y, "y", true)];
              if (!filled) u.ctx.fillStyle = "#ffffff";
              u.ctx.fillText(...place_);
              if (!filled) u.ctx.strokeText(...place_);
              u.ctx.fillStyle = line.colour;
            }
          });
          u.ctx.restore();
        }], setCursor: [u => {
          const at = u.cursor.idx;
          for (const output of values) output.textContent = "";
          of.forEach((line, column) => {
            const value = at === null || at === undefined ? null : columns[column][at];
            if (line !== null && value !== null && value !== undefined) values[line].textContent = value.toFixed(1);
          });
        }]},
      }, columns, place);
    };
    select.addEventListener("change", () => { state.axis = select.value; draw(); });
    tick("logarithmic budget", state.x, on => { state.x = on; });
    tick("logarithmic score", false, on => { state.y = on; });
    element("p", box, "Hover to read values, drag to zoom, double-click to zoom out; untick a line to hide it.", {class: "soft"});
    draw();
    let width = place.clientWidth;
    new ResizeObserver(() => { if (place.clientWidth && place.clientWidth !== width) { width = place.clientWidth; draw(); } }).observe(place);
  };
  document.querySelectorAll(".interactive").forEach((box, number) => {
    const data = JSON.parse(box.querySelector("script").textContent), fold = box.closest("details");
    const start = () => {
      if (box.classList.contains("live") || (fold && !fold.open)) return;
      box.classList.add("live");
      const holder = document.createElement("div");
      box.prepend(holder);
      show(holder, data, number);
    };
    if (fold) fold.addEventListener("toggle", start);
    start();
  });
})();
