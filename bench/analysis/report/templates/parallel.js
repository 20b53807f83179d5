"use strict";
// Lines of a sweep, to be chosen by the values of its options and by the least score, and to be pointed at.
document.querySelectorAll(".parallel").forEach(view => {
  const form = view.querySelector("form"), lines = [...view.querySelectorAll("polyline")];
  const selects = [...form.querySelectorAll("select")], least = form.querySelector("input");
  const readout = view.querySelector(".readout");
  const values = lines.map(line => JSON.parse(line.dataset.values));
  const count = () => {
    const shown = lines.filter(line => !line.classList.contains("out")).length;
    readout.textContent = `${shown} of ${lines.length} lines, ${Number(least.value).toFixed(1)} % or more`;
  };
  const choose = () => {
    lines.forEach((line, index) => {
      const fits = selects.every(select => !select.value || values[index][select.dataset.axis] === select.value);
      line.classList.toggle("out", !fits || Number(line.dataset.score) < Number(least.value) - .05);
    });
    count();
  };
  form.hidden = false;
  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("input", choose);
  form.addEventListener("reset", () => setTimeout(choose));
  lines.forEach(line => {
    line.addEventListener("pointerenter", () => {
      line.classList.add("near");
      readout.textContent = line.querySelector("title").textContent;
    });
    line.addEventListener("pointerleave", () => { line.classList.remove("near"); count(); });
  });
  choose();
});
