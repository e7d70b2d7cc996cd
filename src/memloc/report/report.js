"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const thumbs = JSON.parse(document.getElementById("thumbs").textContent);
  const all = (query, root = document) => [...root.querySelectorAll(query)];
  const byId = (id) => document.getElementById(id);
  const make = (tag, attributes = {}, ...children) => {
    const svg = ["svg", "rect", "line", "circle"].includes(tag);
    const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children.filter((child) => child !== null));
    return node;
  };
  const figure = (value, digits = 3) => {
    if (value === null || value === undefined) return "–";
    const text = value.toFixed(digits);
    return Number(text) === 0 ? text.replace("-", "") : text;
  };
  const picture = (point, name) =>
    thumbs[point]
      ? make("img", { class: "thumb", src: "data:image/png;base64," + thumbs[point], alt: "image " + name, loading: "lazy" })
      : make("span", { class: "blank", role: "img", "aria-label": "no thumbnail of " + name });

  // light and dark
  const root = document.documentElement;
  const setTheme = (theme) => (root.dataset.theme = theme);
  setTheme(window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  byId("theme").addEventListener("click", () => setTheme(root.dataset.theme === "dark" ? "light" : "dark"));

  // hover values
  const tip = byId("tip");
  document.addEventListener("pointermove", (event) => {
    const marked = event.target.closest?.("[data-tip]");
    tip.hidden = !marked;
    if (!marked) return;
    tip.textContent = marked.dataset.tip;
    tip.style.left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8) + "px";
    tip.style.top = Math.max(event.clientY - tip.offsetHeight - 10, 4) + "px";
  });

  // published and calibrated
  all("[data-tab]").forEach((tab) =>
    tab.addEventListener("click", () => {
      all("[data-tab]").forEach((other) => other.setAttribute("aria-selected", String(other === tab)));
      all("[data-panel]").forEach((panel) => (panel.hidden = panel.dataset.panel !== tab.dataset.tab));
    }));

  // a layer, its points, its units
  const chooseLayer = (layer, scroll) => {
    byId("detail-name").textContent = layer;
    all("[data-layer]").forEach((node) => node.classList.toggle("on", node.dataset.layer === layer));
    const gallery = byId("detail-points");
    gallery.replaceChildren();
    const points = data.layer_points[layer] || [];
    const band = data.band[layer];
    byId("detail-band").textContent = band ? "The middle 90 % of external points score " + figure(band.low) + " to " + figure(band.high) + " here." : "";
    for (const row of points) {
      const beyond = band && row.score > band.high;
      gallery.append(make("figure", beyond ? { class: "beyond", title: "above the band of external points" } : {}, picture(row.point, row.name), make("figcaption", {}, row.name + " · " + figure(row.score))));
    }
    if (!points.length) gallery.append("Points have no score here: that needs a reference, or points that the encoder never saw.");
    const body = byId("detail-units").tBodies[0];
    body.replaceChildren();
    for (const row of data.units[layer] || []) {
      const cell = make("td", {}, picture(row.point, row.name), row.name);
      const line = make("tr", { "data-unit": row.unit }, make("th", { scope: "row" }, String(row.unit)), ...row.figures.map((value) => make("td", {}, typeof value === "string" ? value : figure(value))), cell);
      body.append(line);
    }
    if (!body.rows.length) body.append(make("tr", {}, make("td", { colspan: body.parentNode.tHead.rows[0].cells.length }, "No units are read here.")));
    if (scroll) byId("detail").scrollIntoView({ block: "nearest" });
  };
  document.addEventListener("click", (event) => {
    const marked = event.target.closest?.("[data-layer]");
    if (marked) chooseLayer(marked.dataset.layer, true);
  });
  document.addEventListener("keydown", (event) => {
    if ((event.key === "Enter" || event.key === " ") && event.target.dataset?.layer) {
      event.preventDefault();
      chooseLayer(event.target.dataset.layer, true);
    }
  });
  chooseLayer(data.leading, false);

  // sorting
  all("table.sortable").forEach((table) =>
    all("thead th", table).forEach((head, column) =>
      head.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") !== "descending";
        all("thead th", table).forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent;
        const compare = (a, b) => {
          const [x, y] = [value(a), value(b)];
          if (x === "" || y === "") return (x === "") - (y === "");
          const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : Number(x) - Number(y);
          return down ? -order : order;
        };
        table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
      })));

  // points
  const band = data.band[data.leading];
  const values = data.points.flatMap((row) => [row.low ?? row.score, row.high ?? row.score]).concat(band ? [band.low, band.high] : []).filter((value) => value !== null && value !== undefined);
  const reach = Math.max(0.001, ...values.map(Math.abs));
  const at = (value) => 50 + 48 * Math.max(-1, Math.min(1, value / reach));
  const bar = (row) => {
    if (row.score === null) return null;
    const text = data.score_name + " " + figure(row.score) + (row.low === null ? "" : " [" + figure(row.low) + ", " + figure(row.high) + "]") + (band ? "; external 5–95 %: " + figure(band.low) + " to " + figure(band.high) : "");
    const svg = make("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", role: "img", "aria-label": text, "data-tip": text });
    if (band) svg.append(make("rect", { class: "band", x: at(band.low), width: Math.max(at(band.high) - at(band.low), 0.5), y: 0, height: 10 }));
    svg.append(make("line", { class: "null", x1: 50, x2: 50, y1: 0, y2: 10, "vector-effect": "non-scaling-stroke" }));
    if (row.low !== null) svg.append(make("line", { class: "interval", x1: at(row.low), x2: at(row.high), y1: 5, y2: 5, "vector-effect": "non-scaling-stroke" }));
    svg.append(make("rect", { class: "score", x: at(row.score) - 0.6, width: 1.2, y: 1, height: 8 }));
    return svg;
  };
  const unitsOf = (row) => {
    const units = data.point_units[row.point] || [];
    if (!units.length) return null;
    const list = make("div", { class: "chips" });
    for (const [layer, unit, value] of units) {
      const chip = make("button", { type: "button", class: "chip-button", "data-layer": layer }, layer + " · " + unit + " · " + figure(value, 2));
      list.append(chip);
    }
    return make("details", {}, make("summary", {}, row.n_units + (row.n_units > 1 ? " units it drives" : " unit it drives")), list);
  };
  const orders = {
    most: (a, b) => a.rank - b.rank,
    least: (a, b) => b.rank - a.rank,
    units: (a, b) => b.n_units - a.n_units || a.rank - b.rank,
    name: (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }),
  };
  let limit = 24;
  const showPoints = () => {
    const text = byId("filter").value.trim().toLowerCase();
    const planted = byId("planted")?.checked;
    const rows = data.points
      .filter((row) => (!text || row.name.toLowerCase().includes(text) || row.label.toLowerCase().includes(text)) && (!planted || row.planted))
      .sort(orders[byId("order").value]);
    byId("gallery").replaceChildren(...rows.slice(0, limit).map((row) =>
      make("article", { class: "card", "data-point": row.point }, picture(row.point, row.name),
        make("div", {}, make("div", { class: "name" }, row.name + (row.label ? " · " + row.label : "") + " ", row.named ? make("span", { class: "tag named" }, "named") : null, row.planted ? make("span", { class: "tag" }, "planted") : null),
          bar(row),
          make("div", { class: "meta" }, (row.score === null ? "" : "#" + row.rank + " · " + figure(row.score)) + (row.q_value === undefined || row.q_value === null ? "" : " · q " + figure(row.q_value, 2))), unitsOf(row)))));
    byId("shown").textContent = rows.length + " points";
    byId("more").hidden = rows.length <= limit;
  };
  ["filter", "order", "planted"].forEach((id) => byId(id)?.addEventListener("input", () => { limit = 24; showPoints(); }));
  byId("more").addEventListener("click", () => { limit += 48; showPoints(); });
  showPoints();
})();
