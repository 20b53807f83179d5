"use strict";
// What is searched for is in the address, so that a link shows what its sender saw.
(() => {
  const form = document.querySelector("form[role=search]"), input = document.getElementById("search");
  const found = document.getElementById("found"), all = [...document.querySelectorAll(".searched")];
  const texts = all.map(each => each.textContent.toLowerCase());
  const show = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    all.forEach((each, index) => {
      each.hidden = !words.every(word => texts[index].includes(word));
      count += !each.hidden;
    });
    for (const section of document.querySelectorAll("main > section")) section.hidden = !section.querySelector(".searched:not([hidden])");
    found.textContent = words.length ? `${count} found` : "";
  };
  const read = () => {
    if (location.hash && !location.hash.startsWith("#q=")) return;
    input.value = new URLSearchParams(location.hash.slice(1)).get("q") || "";
    show();
  };
  form.hidden = false;
  form.addEventListener("submit", event => event.preventDefault());
  input.addEventListener("input", () => {
    show();
    history.replaceState(null, "", input.value ? `#${new URLSearchParams({q: input.value})}` : "#");
  });
  addEventListener("hashchange", read);
  read();
})();
