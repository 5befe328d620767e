// Classes that are pressed are the only ones whose points the map shows; if none is pressed, it shows all.
const style = document.head.appendChild(document.createElement("style"));
element.addEventListener("click", (event) => {
  const entry = event.target.closest("button");
  if (!entry) return;
  entry.setAttribute("aria-pressed", entry.getAttribute("aria-pressed") !== "true");
  const shown = [...element.querySelectorAll("[aria-pressed=true]")].map((each) => CSS.escape(each.dataset.name));
  const others = shown.map((name) => `:not([data-name="${name}"])`).join("");
  style.textContent = others ? `#latent-map .points circle${others} { display: none; }` : "";
});
