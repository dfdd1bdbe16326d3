// Sorts a table by the column whose heading is clicked: largest first, then smallest, then as it was.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const keyOf = (row) => Number(row.cells[column].dataset.key ?? NaN);
    if (column > 0 && original.every((row) => Number.isNaN(keyOf(row)))) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const next = { none: "descending", descending: "ascending", ascending: "none" };
      const order = column === 0 ? "none" : next[head.getAttribute("aria-sort") ?? "none"];
      for (const other of heads) other.removeAttribute("aria-sort");
      if (order !== "none") head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const rows = order === "none" ? original : [...original].sort((a, b) => {
        const [x, y] = [keyOf(a), keyOf(b)];
        return Number.isNaN(x) - Number.isNaN(y) || sign * (x - y) || 0;
      });
      body.append(...rows);
    });
  });
}
