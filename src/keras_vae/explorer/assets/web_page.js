// Decodes the point under the pointer with the decoder in the page. One loop does all work: the latest point first, then
// the rows of the map, which is decoded again after a change of the class or of a slider.
"use strict";
const STEP = 1 / 40, KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const find = (id) => document.getElementById(id);
const all = (selector) => [...document.querySelectorAll(selector)];
const data = JSON.parse(find("data").textContent);
const [height, width, channels] = data.imageShape, size = height * width, latentDim = data.origin.length;
const map = document.querySelector(".map"), canvas = map.querySelector(".canvas");
const [centerU, centerV, half] = map.dataset.view.split(" ").map(Number);
const sliders = all("input[data-dimension]"), shift = new Float64Array(latentDim);
let point = data.start, label = data.label, decoder = null, isReady = false, isBusy = false, isPointNew = true, rows = [], duration = null;

// ---- The decoder ----

const unpack = (id) => {
  const bytes = Uint8Array.from(atob(find(id).textContent), (character) => character.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
};
const load = async () => {
  const [script, binary, model] = await Promise.all(["runtime-script", "runtime-binary", "decoder"].map(unpack));
  const ort = await import(URL.createObjectURL(new Blob([script], { type: "text/javascript" })));
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = binary;
  const session = await ort.InferenceSession.create(new Uint8Array(model));
  decoder = async (codes) => {
    const count = codes.length, inputs = {
      [data.codeName]: new ort.Tensor("float32", Float32Array.from(codes.flat()), [count, ...data.latentShape]),
    };
    if (label !== null) inputs.condition = new ort.Tensor("int32", new Int32Array(count).fill(label), [count]);
    return (await session.run(inputs)).mean_images.data;
  };
  // The first call is slow, because the browser compiles code.
  await decoder([data.origin]);
};
const codeAt = ([u, v]) => data.origin.map((value, i) => value + shift[i] + u * data.basis[0][i] + v * data.basis[1][i]);
const draw = (context, values, index, x) => {
  const image = context.createImageData(width, height), start = index * size * channels;
  for (let i = 0; i < size; i++) {
    // The array of an image rounds to the nearest level.
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = 255 * values[start + channels * i + (c < channels ? c : 0)];
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, ...x);
};

// ---- The work ----

const work = async () => {
  if (isBusy || !isReady) return;
  isBusy = true;
  while (isPointNew || rows.length) {
    if (isPointNew) {
      isPointNew = false;
      await decodePoint();
    } else {
      await decodeRow(rows.shift());
    }
    // The browser paints and receives events in between.
    await new Promise((resolve) => { setTimeout(resolve); });
  }
  isBusy = false;
};
const decodePoint = async () => {
  const at = point, given = label, code = codeAt(at), start = performance.now();
  const values = await decoder([code]);
  const elapsed = performance.now() - start;
  duration = duration === null ? elapsed : 0.9 * duration + 0.1 * elapsed;
  const image = find("image");
  draw(image.getContext("2d"), values, 0, [0, 0]);
  image.dataset.code = JSON.stringify(code.map(Math.fround));
  image.dataset.label = given ?? "";
  image.setAttribute("aria-label", `image decoded at ${data.axes.map((name, axis) => `${name} = ${text(at[axis])}`).join(", ")}`);
  find("status").textContent = `${duration.toFixed(1)} ms per image`;
};

const grid = document.createElement("canvas");
grid.width = data.gridSize * width;
grid.height = data.gridSize * height;
const decodeRow = async (row) => {
  const place = (i) => 2 * (i + 0.5) / data.gridSize - 1, columns = [...Array(data.gridSize).keys()];
  const values = await decoder(columns.map((column) => codeAt([centerU + half * place(column), centerV - half * place(row)])));
  columns.forEach((column) => draw(grid.getContext("2d"), values, column, [column * width, row * height]));
  if (!rows.length) canvas.setAttribute("href", grid.toDataURL());
};
const decodeMap = () => { rows = [...Array(data.gridSize).keys()]; isPointNew = true; work(); };

// ---- The point ----

// Adding 0 removes the sign of −0.
const text = (value) => (Math.round(100 * value) / 100 + 0).toFixed(2).replace("-", "−");
const moveTo = (target) => {
  point = target;
  const [x, y] = [(point[0] - centerU) / half, (point[1] - centerV) / half];
  const place = [(0.5 + x / 2) * canvas.getAttribute("width"), (0.5 - y / 2) * canvas.getAttribute("height")];
  map.querySelector(".mark").setAttribute("transform", `translate(${place.map((value) => value.toFixed(1)).join(" ")})`);
  all(".coordinate").forEach((each, axis) => { each.textContent = text(point[axis]); });
  isPointNew = true;
  work();
};
const clamp = (value) => Math.min(1, Math.max(-1, value));
const follow = (event) => {
  const box = canvas.getBoundingClientRect();
  const x = 2 * (event.clientX - box.left) / box.width - 1, y = 1 - 2 * (event.clientY - box.top) / box.height;
  const isInside = Math.max(Math.abs(x), Math.abs(y)) <= 1;
  if (isInside || map.hasPointerCapture(event.pointerId)) moveTo([centerU + half * clamp(x), centerV + half * clamp(y)]);
  return isInside;
};
map.addEventListener("pointerdown", (event) => { if (follow(event)) map.setPointerCapture(event.pointerId); });
map.addEventListener("pointermove", follow);
map.addEventListener("keydown", (event) => {
  if (!(event.key in KEYS) || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  const step = 2 * STEP * (event.shiftKey ? 5 : 1), [dx, dy] = KEYS[event.key];
  const [x, y] = [(point[0] - centerU) / half + dx * step, (point[1] - centerV) / half + dy * step];
  moveTo([centerU + half * clamp(x), centerV + half * clamp(y)]);
});

// ---- The controls ----

all(".legend button").forEach((button) => button.addEventListener("click", () => {
  button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
  const pressed = new Set(all(".legend [aria-pressed=true]").map((each) => each.dataset.name));
  for (const circle of all(".map .points circle")) {
    circle.style.display = !pressed.size || pressed.has(circle.dataset.name) ? "" : "none";
  }
}));
find("class")?.addEventListener("change", (event) => { label = +event.target.value; decodeMap(); });
const showValue = (slider) => { slider.nextElementSibling.textContent = text(+slider.value); };
sliders.forEach((slider) => slider.addEventListener("input", () => {
  shift[slider.dataset.dimension] = +slider.value;
  showValue(slider);
  decodeMap();
}));
find("reset")?.addEventListener("click", () => {
  shift.fill(0);
  for (const slider of sliders) { slider.value = slider.defaultValue; showValue(slider); }
  decodeMap();
});

sliders.forEach(showValue);
moveTo(point);
load().then(() => { isReady = true; work(); }).catch((error) => {
  find("status").classList.add("failed");
  find("status").textContent = `The decoder cannot run in this browser: ${error.message ?? error}`;
});
