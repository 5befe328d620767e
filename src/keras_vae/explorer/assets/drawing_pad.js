// A pad to draw on. Its value is the drawing, which is sent during a stroke and after it; without a drawing it is empty.
const INTERVAL = 100;
const canvas = element.querySelector("canvas"), pen = canvas.getContext("2d");
let lastPoint = null, timer = null;
const clear = () => { pen.fillStyle = "black"; pen.fillRect(0, 0, canvas.width, canvas.height); };
const send = (drawing) => {
  clearTimeout(timer);
  timer = null;
  props.value = drawing;
  trigger("input");
};
const pointOf = (event) => {
  const box = canvas.getBoundingClientRect();
  return [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height];
};
const stroke = (from, to) => {
  pen.strokeStyle = "white";
  pen.lineWidth = Math.min(canvas.width, canvas.height) * 0.09;
  pen.lineCap = pen.lineJoin = "round";
  // Browsers draw nothing for a line of length zero.
  pen.beginPath(); pen.moveTo(...from); pen.lineTo(to[0] + 0.01, to[1]); pen.stroke();
};
clear();
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  lastPoint = pointOf(event);
  stroke(lastPoint, lastPoint);
  event.preventDefault();
});
canvas.addEventListener("pointermove", (event) => {
  if (!lastPoint) return;
  const point = pointOf(event);
  stroke(lastPoint, point);
  lastPoint = point;
  timer ??= setTimeout(() => send(canvas.toDataURL("image/png")), INTERVAL);
});
const finish = () => { if (lastPoint) { lastPoint = null; send(canvas.toDataURL("image/png")); } };
canvas.addEventListener("pointerup", finish);
canvas.addEventListener("pointercancel", finish);
element.querySelector("button").addEventListener("click", () => { clear(); send(""); });
