// A pad to draw on. The picture is told after every stroke, and from time to time during one.
const canvas = element.querySelector("canvas"), pen = canvas.getContext("2d");
let last = null, told = 0;
const clear = () => { pen.fillStyle = "black"; pen.fillRect(0, 0, canvas.width, canvas.height); };
const tell = () => { told = Date.now(); trigger("sketch", { picture: canvas.toDataURL("image/png") }); };
const at = (event) => {
  const box = canvas.getBoundingClientRect();
  return [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height];
};
const stroke = (from, to) => {
  pen.strokeStyle = "white";
  pen.lineWidth = Math.min(canvas.width, canvas.height) * 0.09;
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath(); pen.moveTo(...from); pen.lineTo(to[0] + 0.01, to[1]); pen.stroke();
};
clear();
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  last = at(event);
  stroke(last, last);
  event.preventDefault();
});
canvas.addEventListener("pointermove", (event) => {
  if (!last) return;
  const here = at(event);
  stroke(last, here);
  last = here;
  if (Date.now() - told > 250) tell();
});
const end = () => { if (last) { last = null; tell(); } };
canvas.addEventListener("pointerup", end);
canvas.addEventListener("pointercancel", end);
element.querySelector("button").addEventListener("click", () => { clear(); trigger("wipe", {}); });
