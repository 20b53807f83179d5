"use strict";
// The table of all rows: filters and order are in the address, so that a link shows what its sender saw.
(() => {
  const table = document.getElementById("board"), body = table.tBodies[0], rows = [...body.rows];
  const form = document.querySelector(".filters"), selects = [...form.querySelectorAll("select")];
  const shown = document.getElementById("shown"), heads = [...table.tHead.rows[0].cells];
  let sorted = "";  // the key of a column; with a - in front the largest first
  const write = () => {
    const found = new URLSearchParams();
    for (const select of selects) if (select.value) found.set(select.dataset.filter, select.value);
    if (sorted) found.set("sort", sorted);
    const text = found.toString();
    if (text !== location.hash.slice(1)) history.replaceState(null, "", text ? `#${text}` : "#");
  };
  const filter = () => {
    let count = 0;
    for (const row of rows) {
      row.hidden = selects.some(s => s.value && !(row.getAttribute("data-" + s.dataset.filter) || "").split("|").includes(s.value));
      count += !row.hidden;
    }
    shown.textContent = `${count} of ${rows.length} rows`;
  };
  const sort = () => {
    const down = sorted.startsWith("-"), key = sorted.slice(down ? 1 : 0);
    const column = heads.findIndex(head => head.dataset.key === key);
    for (const head of heads) head.removeAttribute("aria-sort");
    if (column < 0) { sorted = ""; body.append(...rows); return; }
    heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
    const number = heads[column].classList.contains("number"), sign = down ? -1 : 1;
    const value = row => row.cells[column].dataset.value;
    body.append(...[...rows].sort((a, b) => {
      const x = value(a), y = value(b);
      if (x === "" || y === "") return (x === "") - (y === "");
      return sign * (number ? x - y : x.localeCompare(y, "en", {numeric: true}));
    }));
  };
  const read = () => {
    if (location.hash && !location.hash.includes("=")) return;  // a place in the page
    const found = new URLSearchParams(location.hash.slice(1));
    for (const select of selects) {
      const wanted = found.get(select.dataset.filter) || "";
      select.value = [...select.options].some(option => option.value === wanted) ? wanted : "";
    }
    sorted = found.get("sort") || "";
    filter();
    sort();
  };
  form.hidden = false;
  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("change", () => { filter(); write(); });
  form.addEventListener("reset", () => setTimeout(() => { filter(); write(); }));
  heads.forEach(head => {
    const button = document.createElement("button"), key = head.dataset.key;
    const first = head.classList.contains("number") && key !== "rank" ? `-${key}` : key;
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      sorted = sorted === first ? (first === key ? `-${key}` : key) : first;
      sort();
      write();
    });
  });
  addEventListener("hashchange", read);
  read();
  filter();
})();
