// Runs in the bar of the selected images: `element` and `trigger` are Gradio's. Shift and Ctrl (or Cmd) with a click,
// Ctrl + A and Escape select in the grid; which images those are is known here alone, also over its pages.
const bar = element.querySelector(".selected-bar");
const numberOf = bar.querySelector(".number");
const tag = bar.querySelector(".tag");
const box = (window.selectedImages ??= { dataset: "", keys: new Set(), anchor: null });
box.stop?.abort();
box.stop = new AbortController();
const listen = (type, act) => document.addEventListener(type, act, { signal: box.stop.signal });

const grid = () => document.querySelector("#dataset-grid .thumbs");
const thumbs = () => [...(grid()?.querySelectorAll(".thumb") ?? [])];
const mark = () => {
  const dataset = grid()?.dataset.dataset ?? "";
  if (dataset !== box.dataset) Object.assign(box, { dataset, keys: new Set(), anchor: null });
  for (const thumb of thumbs()) {
    const is = box.keys.has(thumb.dataset.key);
    if (is !== thumb.hasAttribute("aria-pressed")) is ? thumb.setAttribute("aria-pressed", "true") : thumb.removeAttribute("aria-pressed");
  }
  bar.hidden = box.keys.size === 0;
  const count = box.keys.size.toLocaleString(document.documentElement.lang || "en");
  const words = box.keys.size ? gettext("{count} selected", { count }) : "";
  if (numberOf.textContent !== words) numberOf.textContent = words;
};
const select = (keys) => {
  box.keys = new Set(keys);
  mark();
};
const extend = (thumb, add) => {
  const all = thumbs();
  const from = all.findIndex(({ dataset }) => dataset.key === (box.anchor ?? thumb.dataset.key));
  const to = all.indexOf(thumb);
  const range = all.slice(Math.min(Math.max(from, 0), to), Math.max(from, to) + 1).map(({ dataset }) => dataset.key);
  select(add ? [...box.keys, ...range] : range);
};
const toggle = (thumb) => {
  const { key } = thumb.dataset;
  // As in a file manager, the image that is shown is the first of them.
  if (box.keys.size === 0 && box.anchor !== null && box.anchor !== key) box.keys.add(box.anchor);
  box.keys.has(key) ? box.keys.delete(key) : box.keys.add(key);
  box.anchor = key;
  mark();
};
const send = async (act, keys) => {
  await window.captionBox?.saved(); // what was typed before counts
  trigger("click", { act, dataset: box.dataset, keys, tag: tag.value });
};

listen("click", (event) => {
  const star = event.target.closest?.("#dataset-grid .star");
  if (star) {
    const on = star.getAttribute("aria-pressed") !== "true";
    const { key } = star.closest(".cell").querySelector(".thumb").dataset;
    const keys = box.keys.has(key) ? [...box.keys] : [key]; // one of the selected stands for all of them
    const meant = thumbs().filter(({ dataset }) => keys.includes(dataset.key));
    for (const thumb of meant) thumb.closest(".cell").querySelector(".star").setAttribute("aria-pressed", on);
    send(on ? "star" : "unstar", keys);
    return;
  }
  const thumb = event.target.closest?.("#dataset-grid .thumb");
  if (!thumb) return;
  const toggles = event.ctrlKey || event.metaKey;
  if (event.shiftKey) extend(thumb, toggles);
  else if (toggles) toggle(thumb);
  else {
    box.anchor = thumb.dataset.key;
    select([]);
  }
});
listen("mousedown", (event) => event.shiftKey && event.target.closest?.("#dataset-grid .thumb") && event.preventDefault()); // no text is selected
listen("keydown", (event) => {
  if (!grid()?.checkVisibility() || document.querySelector("dialog[open]")) return;
  if (event.target.matches?.("input, textarea, select, [contenteditable]")) {
    if (event.target === tag && event.key === "Enter") send("tag", [...box.keys]);
    return;
  }
  if (event.key === "Escape" && box.keys.size) select([]);
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "a") {
    event.preventDefault();
    select([...box.keys, ...thumbs().map(({ dataset }) => dataset.key)]);
  }
});
listen("studio:grid", mark);
bar.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.act) send(button.dataset.act, [...box.keys]);
  else if (button) select([]);
});
mark();
