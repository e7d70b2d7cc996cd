"use strict";
const root = document.documentElement;
root.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
document.getElementById("theme").addEventListener("click", () => { root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark"; });

const rowCells = document.getElementById("row-cells");
const held = rowCells ? JSON.parse(rowCells.textContent) : { columns: [], rows: {} };
const closeRows = () => {
  for (const open of document.querySelectorAll("tr.cells")) open.remove();
  for (const button of document.querySelectorAll("button.open")) button.setAttribute("aria-expanded", "false");
};
for (const button of document.querySelectorAll("button.open")) {
  const cells = held.rows[button.dataset.row];
  if (!cells) { button.disabled = true; continue; }
  button.addEventListener("click", () => {
    const line = button.closest("tr"), wasOpen = button.getAttribute("aria-expanded") === "true";
    closeRows();
    if (wasOpen) return;
    button.setAttribute("aria-expanded", "true");
    const list = document.createElement("dl");
    list.className = "cells";
    held.columns.forEach((name, place) => {
      const term = document.createElement("dt"), content = document.createElement("dd");
      term.textContent = name;
      content.textContent = cells[place];
      if (name === line.dataset.column) content.className = term.className = "odd";
      list.append(term, content);
    });
    const row = document.createElement("tr"), cell = document.createElement("td");
    row.className = "cells";
    cell.colSpan = line.children.length;
    cell.append(list);
    row.append(cell);
    line.after(row);
  });
}

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((head, place) => head.querySelector("button").addEventListener("click", () => {
    closeRows();
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

const filter = document.getElementById("filter"), shown = document.getElementById("shown"), kind = document.getElementById("kind");
const narrow = () => {
  closeRows();
  const wanted = filter.value.trim().toLowerCase();
  let count = 0;
  for (const row of document.getElementById(filter.dataset.table).tBodies[0].rows) {
    const text = [...row.querySelectorAll(".sought")].map((cell) => cell.textContent).join(" ");
    row.hidden = !text.toLowerCase().includes(wanted) || (kind !== null && kind.value !== "" && row.dataset.kind !== kind.value);
    count += !row.hidden;
  }
  shown.textContent = `${count} ${filter.dataset.what}`;
};
if (filter) {
  filter.addEventListener("input", narrow);
  if (kind) kind.addEventListener("change", narrow);
  narrow();
}

const copy = document.getElementById("copy");
if (copy) copy.addEventListener("click", () => {
  const table = document.getElementById(filter.dataset.table);
  closeRows();
  const text = (cell) => cell.textContent.trim().replace(/\s+/g, " ");
  const fields = (cell) => {  // a row's number and the user's id of it stand in one cell, and are copied as two
    const number = cell.querySelector("button.open");
    if (!number || !table.dataset.id) return [text(cell)];
    const id = cell.querySelector(".id");
    return [text(number), id ? text(id) : ""];
  };
  const head = [...table.tHead.rows[0].cells].map(text).flatMap((name) => name === "row" && table.dataset.id ? [name, table.dataset.id] : [name]);
  const lines = [head, ...[...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => [...row.cells].flatMap(fields))];
  const area = document.createElement("textarea");
  area.value = lines.map((line) => line.join("\t")).join("\n");
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  shown.textContent = done ? `${lines.length - 1} ${filter.dataset.what} copied` : "copying is not allowed here";
});
