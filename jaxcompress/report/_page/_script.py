# SPDX-License-Identifier: Apache-2.0
"""The script of the page: headers of tables sort their rows."""

SCRIPT = """
"use strict";
const kinds = { number: 0, text: 1, missing: 2 };
function key(row, index) {
  const cell = row.cells[index];
  if (cell.dataset.number !== undefined) return [kinds.number, Number(cell.dataset.number)];
  if (cell.dataset.text !== undefined) return [kinds.text, cell.dataset.text];
  return [kinds.missing, 0];
}
function order(a, b, down) {
  if (a[0] !== b[0]) return a[0] - b[0];  // what is missing comes last either way
  const sign = a[0] === kinds.text ? a[1].localeCompare(b[1]) : a[1] - b[1];
  return down ? -sign : sign;
}
for (const table of document.querySelectorAll("table")) {
  for (const button of table.querySelectorAll("th button")) {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const sorted = head.getAttribute("aria-sort");
      const first = head.dataset.first;
      const next = sorted === null ? first
        : sorted === "ascending" ? "descending" : "ascending";
      for (const other of table.querySelectorAll("th[aria-sort]")) {
        other.removeAttribute("aria-sort");
      }
      head.setAttribute("aria-sort", next);
      const rows = [...table.tBodies[0].rows].map((row) => [key(row, head.cellIndex), row]);
      rows.sort((a, b) => order(a[0], b[0], next === "descending"));
      table.tBodies[0].append(...rows.map((pair) => pair[1]));
    });
  }
}
"""
