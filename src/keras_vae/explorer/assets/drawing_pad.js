// A pad to draw on. The image is sent after every stroke, and every quarter of a second during a stroke.
const INTERVAL = 250;
const canvas = element.querySelector("canvas"), pen = canvas.getContext("2d");
let lastPoint = null, lastSent = 0;
const clear = () => { pen.fillStyle = "black"; pen.fillRect(0, 0, canvas.width, canvas.height); };
const send = () => { lastSent = Date.now(); trigger("sketch", { image: canvas.toDataURL("image/png") }); };
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
  if (Date.now() - lastSent > INTERVAL) send();
});
const finish = () => { if (lastPoint) { lastPoint = null; send(); } };
canvas.addEventListener("pointerup", finish);
canvas.addEventListener("pointercancel", finish);
element.querySelector("button").addEventListener("click", () => { clear(); trigger("clear", {}); });
