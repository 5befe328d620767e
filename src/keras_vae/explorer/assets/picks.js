// Images to pick from, by a click or by the keyboard.
const pick = (event) => {
  const chosen = event.target.closest("[data-index]");
  if (chosen) trigger("pick", { index: +chosen.dataset.index });
};
element.addEventListener("click", pick);
element.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pick(event); } });
