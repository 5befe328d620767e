// A click picks a point of the map; a drag with the mouse picks a region. Both are told as shares of the map.
const canvas = () => element.querySelector(".canvas");
let start = null;
const share = (event) => {
  const box = canvas().getBoundingClientRect();
  const clamp = (value) => Math.min(1, Math.max(0, value));
  return [clamp((event.clientX - box.left) / box.width), clamp((event.clientY - box.top) / box.height)];
};
const size = () => [+canvas().getAttribute("width"), +canvas().getAttribute("height")];
const inside = (event) => {
  if (!canvas()) return false;
  const box = canvas().getBoundingClientRect();
  return event.clientX >= box.left && event.clientX <= box.right && event.clientY >= box.top && event.clientY <= box.bottom;
};
const draw = (a, b) => {
  const [width, height] = size(), rect = element.querySelector(".box");
  rect.setAttribute("x", Math.min(a[0], b[0]) * width);
  rect.setAttribute("y", Math.min(a[1], b[1]) * height);
  rect.setAttribute("width", Math.abs(a[0] - b[0]) * width);
  rect.setAttribute("height", Math.abs(a[1] - b[1]) * height);
};
const far = (a, b) => Math.max(Math.abs(a[0] - b[0]), Math.abs(a[1] - b[1])) > 0.02;
element.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || !inside(event)) return;
  start = share(event);
  if (event.pointerType === "mouse") event.preventDefault();
});
window.addEventListener("pointermove", (event) => {
  if (start && event.pointerType === "mouse" && canvas()) draw(start, share(event));
});
window.addEventListener("pointerup", (event) => {
  if (!start || !canvas()) return;
  const [a, b] = [start, share(event)];
  start = null;
  draw(a, a);
  if (event.pointerType === "mouse" && far(a, b)) {
    trigger("region", { x0: a[0], y0: 1 - a[1], x1: b[0], y1: 1 - b[1] });
  } else {
    const [width, height] = size();
    element.querySelector(".mark").setAttribute("transform", `translate(${b[0] * width} ${b[1] * height})`);
    trigger("pick", { x: b[0], y: 1 - b[1] });
  }
});
window.addEventListener("pointercancel", () => { start = null; });
