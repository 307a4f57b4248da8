// Runs in the place of the large image: `element` and `trigger` are Gradio's. The crop is dragged over the image, or moved
// with Shift and the arrows; where it is then, is sent.
const STEP = 0.02;
let drag = null;
let keyTimer = 0;
const shown = () => element.querySelector(".shown[data-key]");
const percent = (crop) => ["left", "top", "width", "height"].map((name) => parseFloat(crop.style[name]) / 100);
const place = (crop, left, top) => {
  const [, , width, height] = percent(crop);
  const { free } = shown().dataset;
  const within = (value, size) => Math.min(Math.max(0, value), 1 - size);
  if (free.includes("x")) crop.style.left = `${100 * within(left, width)}%`;
  if (free.includes("y")) crop.style.top = `${100 * within(top, height)}%`;
};
const send = (focus) => {
  const { dataset, key } = shown().dataset;
  trigger("click", { dataset, key, focus });
};
const sendPlace = (crop) => {
  const [left, top, width, height] = percent(crop);
  send([Math.min(1, left + width / 2), Math.min(1, top + height / 2)]);
};

element.addEventListener("pointerdown", (event) => {
  const zoom = event.target.closest(".zoom");
  if (!zoom || event.button !== 0 || !shown()?.dataset.free) return;
  const crop = zoom.querySelector(".crop");
  const [left, top] = percent(crop);
  drag = { zoom, crop, left, top, x: event.clientX, y: event.clientY, moved: false };
  zoom.setPointerCapture(event.pointerId);
});
element.addEventListener("pointermove", (event) => {
  if (!drag) return;
  const [x, y] = [event.clientX - drag.x, event.clientY - drag.y];
  drag.moved ||= Math.hypot(x, y) > 4;
  if (drag.moved) place(drag.crop, drag.left + x / drag.zoom.clientWidth, drag.top + y / drag.zoom.clientHeight);
});
element.addEventListener("pointerup", () => {
  if (drag?.moved) sendPlace(drag.crop);
  else drag = null;
});
element.addEventListener("pointercancel", () => (drag = null));
element.addEventListener("dragstart", (event) => event.preventDefault()); // of the image itself
// A drag ends in a click, which is not meant to enlarge.
element.addEventListener(
  "click",
  (event) => {
    if (drag?.moved) event.stopPropagation();
    drag = null;
    const button = event.target.closest(".recentre");
    if (!button) return;
    const crop = shown().querySelector(".crop");
    const [, , width, height] = percent(crop);
    place(crop, (1 - width) / 2, (1 - height) / 2); // seen at once
    button.remove();
    send(null);
  },
  true,
);
element.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key];
  const crop = event.target.closest(".zoom")?.querySelector(".crop");
  if (!by || !crop || !event.shiftKey || !shown()?.dataset.free) return;
  event.preventDefault();
  event.stopPropagation(); // without Shift they go through the images
  const [left, top] = percent(crop);
  place(crop, left + by[0], top + by[1]);
  clearTimeout(keyTimer);
  keyTimer = setTimeout(() => crop.isConnected && sendPlace(crop), 400);
});
