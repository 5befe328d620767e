// Slots for images. Their value is the list of images, as data URIs. A click on one of the choices fills the pressed slot.
const slots = [...element.querySelectorAll("[data-slot]")], message = element.querySelector(".alert");
const press = (slot) => slots.forEach((each) => each.setAttribute("aria-pressed", each === slot));
const fill = (image) => {
  message.hidden = Boolean(image);
  if (!image) return;
  const slot = element.querySelector("[aria-pressed=true]");
  slot.querySelector("img").src = image;
  props.value = slots.map((each) => each.querySelector("img").src);
  press(slots[(slots.indexOf(slot) + 1) % slots.length]);
  trigger("input");
};
slots.forEach((slot) => slot.addEventListener("click", () => press(slot)));
element.querySelector(".use-drawing").addEventListener("click", () => fill(document.querySelector("#analysis img")?.src));
document.addEventListener("click", (event) => {
  const choice = event.target.closest(`#${element.querySelector(".slots").dataset.choices} [data-index]`);
  if (choice) fill(choice.querySelector("img").src);
});
// A pressed slot tells that clicks are handled from now on.
press(slots[0]);
