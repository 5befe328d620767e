// A click picks a point of the map, a drag with the mouse selects a region. Positions are sent as fractions of the map.
const MIN_DRAG = 0.02;
const canvas = () => element.querySelector(".canvas");
let start = null;
const fraction = (event) => {
  const box = canvas().getBoundingClientRect();
  const clamp = (value) => Math.min(1, Math.max(0, value));
  return [clamp((event.clientX - box.left) / box.width), clamp((event.clientY - box.top) / box.height)];
};
const size = () => [+canvas().getAttribute("width"), +canvas().getAttribute("height")];
const isInside = (event) => {
  if (!canvas()) return false;
  const box = canvas().getBoundingClientRect();
  return event.clientX >= box.left && event.clientX <= box.right && event.clientY >= box.top && event.clientY <= box.bottom;
};
const drawSelection = (a, b) => {
  const [width, height] = size(), rect = element.querySelector(".selection");
  rect.setAttribute("x", Math.min(a[0], b[0]) * width);
  rect.setAttribute("y", Math.min(a[1], b[1]) * height);
  rect.setAttribute("width", Math.abs(a[0] - b[0]) * width);
  rect.setAttribute("height", Math.abs(a[1] - b[1]) * height);
};
const isDrag = (a, b) => Math.max(Math.abs(a[0] - b[0]), Math.abs(a[1] - b[1])) > MIN_DRAG;
element.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || !isInside(event)) return;
  start = fraction(event);
  if (event.pointerType === "mouse") event.preventDefault();
});
window.addEventListener("pointermove", (event) => {
  if (start && event.pointerType === "mouse" && canvas()) drawSelection(start, fraction(event));
});
window.addEventListener("pointerup", (event) => {
  if (!start || !canvas()) return;
  const [a, b] = [start, fraction(event)];
  start = null;
  drawSelection(a, a);
  if (event.pointerType === "mouse" && isDrag(a, b)) {
    trigger("region", { x0: a[0], y0: 1 - a[1], x1: b[0], y1: 1 - b[1] });
  } else {
    const [width, height] = size();
    element.querySelector(".mark").setAttribute("transform", `translate(${b[0] * width} ${b[1] * height})`);
    trigger("pick", { x: b[0], y: 1 - b[1] });
  }
});
window.addEventListener("pointercancel", () => { start = null; });
