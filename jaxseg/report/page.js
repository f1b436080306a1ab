// Sorts the tables of a page by the column whose header is pressed: upwards, downwards, as written.
"use strict";
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const written = [...body.rows];
  if (written.length < 3) continue;
  const headers = [...table.tHead.rows[0].cells];

  // The key of a cell: of numbers the estimate, which comes before its interval; null for what is undefined.
  const key = (row, column) => {
    const text = row.cells[column].textContent.trim();
    if (!headers[column].classList.contains("number")) return text === "–" || text === "" ? null : text;
    const number = Number.parseFloat(text.replace("\u2212", "-").replace(/,(?=\d)/g, ""));
    return Number.isNaN(number) ? null : number;
  };
  const compare = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));

  const sort = (column, direction) => {
    const rows = written.map((row) => ({ row, key: key(row, column) }));
    if (direction) {
      rows.sort((a, b) => {
        if (a.key === null || b.key === null) return (a.key === null) - (b.key === null); // last, either way
        return direction * compare(a.key, b.key);
      });
    }
    body.append(...rows.map(({ row }) => row));
  };

  headers.forEach((header, column) => {
    if (header.textContent.trim() === "") return; // a button without a name says nothing to a screen reader
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: "none" }[header.getAttribute("aria-sort")] ?? "ascending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      if (next !== "none") header.setAttribute("aria-sort", next);
      sort(column, { ascending: 1, descending: -1, none: 0 }[next]);
    });
  });
  const hint = document.createElement("span");
  hint.className = "hidden";
  hint.textContent = ", column headers with buttons sort it";
  table.caption.firstElementChild.append(hint);
}
