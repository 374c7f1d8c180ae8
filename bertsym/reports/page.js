"use strict";
// Sort the tables of examples by a column, and show only the rows that contain some words.
for (const block of document.querySelectorAll(".examples")) {
  const body = block.querySelector("tbody");
  const rows = [...body.rows];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const tools = block.querySelector(".tools");
  if (!tools) continue;
  const input = tools.querySelector("input");
  const count = tools.querySelector("span");
  const scroll = block.querySelector(".scroll");
  tools.hidden = false;

  const show = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, number) => {
      row.hidden = !words.every((word) => texts[number].includes(word));
      shown += !row.hidden;
    });
    const hint = scroll.scrollHeight > scroll.clientHeight ? "; scroll for more" : "";
    count.textContent = (words.length ? `${shown} of ${rows.length} rows` : `${rows.length} rows`) + hint;
  };
  input.addEventListener("input", show);
  show();

  const heads = [...block.querySelectorAll("th")];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const value = (row) => {
        const cell = row.cells[column];
        return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
      };
      const compare = (one, other) => {
        const [a, b] = [value(one), value(other)];
        if (typeof a === "number" && typeof b === "number") return a - b;
        return String(a).localeCompare(String(b));
      };
      const sorted = [...rows].sort((one, other) => (descending ? -1 : 1) * compare(one, other));
      body.append(...sorted);
    });
  });
}
