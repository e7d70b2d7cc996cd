"use strict";
const root = document.documentElement;
root.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
document.getElementById("theme").addEventListener("click", () => { root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark"; });

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((head, place) => head.querySelector("button").addEventListener("click", () => {
    const falling = head.getAttribute("aria-sort") === "ascending";
    table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const key = (row) => { const cell = row.children[place]; const text = cell.dataset.sort ?? cell.textContent; const number = Number(text); return text === "" || Number.isNaN(number) ? text : number; };
    const turn = falling ? -1 : 1;
    const order = (a, b) => { const x = key(a), y = key(b); if (x === "" || y === "") return (x === "") - (y === ""); return x < y ? -turn : x > y ? turn : 0; };
    body.append(...[...body.rows].sort(order));
  }));
}

for (const tab of document.querySelectorAll("[data-tab]")) tab.addEventListener("click", () => {
  for (const other of document.querySelectorAll("[data-tab]")) other.setAttribute("aria-selected", String(other === tab));
  for (const panel of document.querySelectorAll("[data-panel]")) panel.hidden = panel.dataset.panel !== tab.dataset.tab;
});

const filter = document.getElementById("filter"), shown = document.getElementById("shown");
const narrow = () => {
  const wanted = filter.value.trim().toLowerCase();
  let count = 0;
  for (const row of document.getElementById(filter.dataset.table).tBodies[0].rows) {
    const text = [...row.querySelectorAll(".sought")].map((cell) => cell.textContent).join(" ");
    row.hidden = !text.toLowerCase().includes(wanted);
    count += !row.hidden;
  }
  shown.textContent = `${count} ${filter.dataset.what}`;
};
if (filter) {
  filter.addEventListener("input", narrow);
  narrow();
}
