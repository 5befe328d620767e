// The cursor on the latent map. Its value has coordinates of the plane: those of the point to decode, of the ring and of
// the region that was selected last. The map itself may be replaced at any time.
const INTERVAL = 40, MIN_DRAG = 0.02, NEAR = 12, STEP = 1 / 40;
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const BUTTONS = { "+": "zoom-in", "=": "zoom-in", "-": "zoom-out", "0": "reset-view" };
let plane = null, mark = null, point = null, region = null, start = null, timer = null, isOver = false;

const map = () => document.querySelector("#latent-map svg.map");
const box = () => map().querySelector(".canvas").getBoundingClientRect();
const clamp = (value) => Math.min(1, Math.max(0, value));
const isOn = (event) => {
  const { left, right, top, bottom } = box(), { clientX: x, clientY: y } = event;
  return event.target.closest?.("#latent-map svg.map") && x >= left && x <= right && y >= top && y <= bottom;
};
// Fractions of the map count from its lower left corner.
const fractionOf = (event) => {
  const { left, bottom, width, height } = box();
  return [clamp((event.clientX - left) / width), clamp((bottom - event.clientY) / height)];
};
const view = () => map().dataset.view.split(" ").map(Number);
const pointAt = ([x, y]) => { const [u, v, half] = view(); return [u + half * (2 * x - 1), v + half * (2 * y - 1)]; };
const fractionAt = ([a, b]) => { const [u, v, half] = view(); return [((a - u) / half + 1) / 2, ((b - v) / half + 1) / 2]; };

const update = (event) => {
  props.value = { plane, point, mark, region };
  trigger(event);
};
const send = () => { timer ??= setTimeout(() => { timer = null; update("input"); }, INTERVAL); };
const placeMark = () => {
  if (!map()) return;
  if (plane !== map().dataset.plane) {
    plane = map().dataset.plane;
    point = mark = view().slice(0, 2);
  }
  const canvas = map().querySelector(".canvas"), [x, y] = fractionAt(mark);
  const place = `translate(${(x * canvas.getAttribute("width")).toFixed(1)} ${((1 - y) * canvas.getAttribute("height")).toFixed(1)})`;
  const ring = map().querySelector(".mark");
  if (ring.getAttribute("transform") !== place) ring.setAttribute("transform", place);
};
const moveMark = (target) => { point = mark = target; placeMark(); send(); };
const drawSelection = (a, b) => {
  const canvas = map().querySelector(".canvas"), rect = map().querySelector(".selection");
  const [width, height] = ["width", "height"].map((name) => +canvas.getAttribute(name));
  rect.setAttribute("x", Math.min(a[0], b[0]) * width);
  rect.setAttribute("y", (1 - Math.max(a[1], b[1])) * height);
  rect.setAttribute("width", Math.abs(a[0] - b[0]) * width);
  rect.setAttribute("height", Math.abs(a[1] - b[1]) * height);
};

// Show the image and the label of the point nearest to a position in the window, if one is near.
const showTip = (x, y) => {
  const tip = document.querySelector("#map-tip .tip"), { left, top, width } = box();
  if (!tip) return;
  const scale = width / map().querySelector(".canvas").getAttribute("width");
  let nearest = null, least = NEAR;
  for (const circle of map().querySelectorAll(".points circle")) {
    const distance = Math.hypot(left + circle.cx.baseVal.value * scale - x, top + circle.cy.baseVal.value * scale - y);
    if (distance < least && getComputedStyle(circle).display !== "none") [nearest, least] = [circle, distance];
  }
  tip.hidden = !nearest;
  if (!nearest) return;
  const { columns, rows } = tip.dataset, index = +nearest.dataset.index;
  const percent = (place, count) => `${(100 * place) / Math.max(1, count - 1)}%`;
  tip.querySelector("i").style.backgroundPosition =
    `${percent(index % columns, columns)} ${percent(Math.floor(index / columns), rows)}`;
  tip.querySelector("span").textContent = nearest.dataset.name;
  tip.style.left = `${Math.min(x + 16, innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${Math.min(y + 16, innerHeight - tip.offsetHeight - 8)}px`;
};
const hideTip = () => { const tip = document.querySelector("#map-tip .tip"); if (tip) tip.hidden = true; };

document.addEventListener("pointerdown", (event) => {
  if (!map() || event.button !== 0 || !isOn(event)) return;
  start = fractionOf(event);
  if (event.pointerType === "mouse") { event.preventDefault(); map().focus({ preventScroll: true }); }
});
document.addEventListener("pointermove", (event) => {
  if (!map()) return;
  const isHere = isOn(event);
  if (isHere || start) {
    isOver = true;
    const target = pointAt(fractionOf(event));
    showTip(event.clientX, event.clientY);
    if (event.pointerType !== "mouse") { if (start) moveMark(target); return; }
    if (start) drawSelection(start, fractionOf(event));
    point = target;
    send();
  } else if (isOver) {
    isOver = false;
    hideTip();
    point = mark;
    send();
  }
});
document.addEventListener("pointerup", (event) => {
  if (!start || !map()) return;
  const [a, b] = [start, fractionOf(event)];
  start = null;
  drawSelection(a, a);
  if (event.pointerType === "mouse" && Math.max(Math.abs(a[0] - b[0]), Math.abs(a[1] - b[1])) > MIN_DRAG) {
    region = [...pointAt(a), ...pointAt(b)];
    update("select");
  } else {
    moveMark(pointAt(b));
  }
});
document.addEventListener("pointercancel", () => { start = null; });
document.addEventListener("keydown", (event) => {
  if (!map() || document.activeElement !== map() || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key in BUTTONS) {
    event.preventDefault();
    document.getElementById(BUTTONS[event.key]).click();
  } else if (event.key in KEYS) {
    event.preventDefault();
    const step = STEP * (event.shiftKey ? 5 : 1), [x, y] = fractionAt(mark), [dx, dy] = KEYS[event.key];
    moveMark(pointAt([clamp(x + dx * step), clamp(y + dy * step)]));
    const { left, bottom, width, height } = box(), [nextX, nextY] = fractionAt(mark);
    showTip(left + nextX * width, bottom - nextY * height);
  }
});
document.addEventListener("focusout", hideTip);
placeMark();
// The map is replaced by one with another view or plane, or with the ring at an earlier place.
new MutationObserver(placeMark).observe(document.querySelector("#latent-map"), {
  subtree: true, childList: true, attributes: true, attributeFilter: ["data-view", "data-plane", "transform"],
});
