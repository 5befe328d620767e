// Images to choose from, with the mouse or the keyboard.
const choose = (event) => {
  const chosen = event.target.closest("[data-index]");
  if (chosen) trigger("choose", { index: +chosen.dataset.index });
};
element.addEventListener("click", choose);
element.addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(event); }
});
