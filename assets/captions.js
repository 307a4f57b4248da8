// Runs in the caption's box: `element`, `trigger`, `watch` and `props` are Gradio's. Whose text is in the box is known
// here alone. The grid brings the captions of its page, so another image's is there at once; what is typed is kept by
// its dataset and key, sent with them until the studio says it is saved, and never replaced by an answer.
const SAVE_MILLISECONDS = 400; // after the first letter that is not saved
const ASK_MILLISECONDS = 40; // two frames
const RETRY_MILLISECONDS = 3000; // the studio does not answer
const ANSWER_MILLISECONDS = 30_000;
const ROW_MILLISECONDS = 15_000; // then the image's details are asked for again
const KEEPALIVE_CHARACTERS = 15_000; // browsers let 64 kB go on when their page is closed

const area = element.querySelector("textarea");
const wordsLine = element.querySelector("#dataset-saved");
const unsaved = element.querySelector(".unsaved");
const standIn = element.querySelector(".stand-in");
const caption = element.querySelector(".caption-box");
const tags = element.querySelector(".tags");
const newTag = element.querySelector(".new-tag");

// What outlives the component, should Gradio ever make it anew.
const box = (window.captionBox ??= {
  page: crypto.getRandomValues(new Uint32Array(4)).join("-"),
  number: 0,
  known: new Map(), // the latest that the studio said of an image
  typed: new Map(), // what it has not said to be saved yet
  shown: null, // the image whose text is in the box
});
box.stop?.abort();
box.stop = new AbortController();
const listen = (target, type, act) => target.addEventListener(type, act, { signal: box.stop.signal });

const idOf = ({ dataset, key }) => `${dataset}\n${key}`;
const isLater = (a, b) => a[0] > b[0] || (a[0] === b[0] && a[1] >= b[1]);
const learn = (news) => {
  const before = box.known.get(idOf(news));
  if (before && !isLater(news.stamp, before.stamp)) return;
  const same = before?.caption === news.caption;
  box.known.set(idOf(news), same ? { ...before, ...news } : news);
};

const grid = () => document.querySelector("#dataset-grid .thumbs");
const chosenDataset = () => JSON.parse(sessionStorage.getItem("selection") || "{}").dataset ?? "";
const shownDataset = () => grid()?.dataset.dataset ?? chosenDataset(); // the forms are filled before the grid is there
const images = () => [...(grid()?.querySelectorAll("[data-key]") ?? [])];
const placeOf = (image) => images().find((place) => image && shownDataset() === image.dataset && place.dataset.key === image.key);
const isTouched = () => document.activeElement === area || (box.shown && box.typed.has(idOf(box.shown)));

// The box

const show = (image) => {
  box.shown = image;
  if (image) sessionStorage.setItem("dataset-image", JSON.stringify(image)); // for a reload
  const known = image && box.known.get(idOf(image));
  area.value = image ? (box.typed.get(idOf(image))?.text ?? known?.caption ?? "") : "";
  area.disabled = newTag.disabled = !image;
  showTags();
  newTag.disabled = !image || isSeveral(area.value);
  describe();
};

// A comma-separated caption as chips beside its text; a chip's button takes its tag out.
const tagsOf = (text) => text.split(",").map((tag) => tag.trim()).filter(Boolean);
const isSeveral = (text) => /(^|\s)\|\|(\s|$)/.test(text); // captions of one image: no tags of one
const showTags = () => {
  if (tags.dataset.of === area.value) return;
  tags.dataset.of = area.value;
  const all = isSeveral(area.value) ? [] : tagsOf(area.value);
  newTag.disabled = !box.shown || isSeveral(area.value);
  const chips = (all.length > 1 ? all : []).map((tag, index) => {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", className: "chip", textContent: `${tag} ✕` });
    button.setAttribute("aria-label", gettext("Remove the tag {tag}", { tag }));
    button.dataset.index = index;
    return button;
  });
  tags.replaceChildren(...chips);
};
const type = (text) => {
  area.value = text;
  area.dispatchEvent(new Event("input", { bubbles: true }));
};
listen(tags, "click", (event) => {
  const index = event.target.closest("button")?.dataset.index;
  if (index === undefined) return;
  type(tagsOf(area.value).filter((_, i) => i !== Number(index)).join(", "));
  (tags.querySelectorAll("button")[index] ?? tags.lastElementChild ?? newTag).focus();
});
listen(newTag, "keydown", (event) => {
  if (event.key !== "Enter" || event.isComposing || !box.shown) return;
  event.preventDefault();
  const all = tagsOf(area.value);
  const known = new Set(all.map((tag) => tag.toLowerCase()));
  const added = tagsOf(newTag.value).filter((tag) => !known.has(tag.toLowerCase()));
  if (added.length) type([...all, ...added].join(", "));
  newTag.value = "";
});
const choose = (place) => {
  show({ dataset: shownDataset(), key: place.dataset.key, beyond: place.matches(".beyond") });
  standFor(place);
  mark();
  askSoon();
};
// What Gradio does to ask takes longer than all of the above: the caption is on the screen first, a frame or two later.
// Of images that are gone through fast, only the last is asked for.
let soonTimer = 0;
const askSoon = () => {
  clearTimeout(soonTimer);
  soonTimer = setTimeout(ask, ASK_MILLISECONDS);
};
// Gradio answers in the order of what it heard, which need not be that of what we asked; and sometimes not at all.
let askTimer = 0;
const ask = () => {
  clearTimeout(askTimer);
  askTimer = setTimeout(() => "waits" in caption.dataset && ask(), ROW_MILLISECONDS);
  trigger("select");
};
const step = (by) => {
  const all = images();
  const index = all.indexOf(placeOf(box.shown));
  const place = index < 0 ? all.find((other) => !other.hidden) : all[index + by];
  if (place) choose(place);
};
const mark = () => {
  for (const place of images()) {
    const isShown = box.shown?.dataset === shownDataset() && box.shown.key === place.dataset.key;
    place.toggleAttribute("aria-current", isShown);
    if (isShown) place.setAttribute("aria-current", "true");
    const typed = box.typed.get(idOf({ dataset: shownDataset(), key: place.dataset.key }));
    place.classList.toggle("not-saved", Boolean(typed?.problem));
  }
};

// What is on the screen is of one dataset: until the grid of the one that was chosen is there, nothing of the one before.
const cover = () => {
  const chosen = chosenDataset();
  const canvas = document.querySelector("#dataset-canvas");
  if (canvas) canvas.inert = chosen !== "" && chosen !== shownDataset();
};
listen(document, "studio:selection", cover);
// After a reload the image of before is shown again, on whichever page of the grid it is.
const recall = () => {
  if (box.recalled) return;
  box.recalled = true;
  const image = JSON.parse(sessionStorage.getItem("dataset-image") || "null");
  if (box.shown || image?.dataset !== shownDataset()) return;
  const place = placeOf(image);
  if (place) return choose(place);
  show({ ...image, beyond: true });
  ask();
};

// Until the studio sent the large picture, its thumbnail; what is of the image before is hidden meanwhile.
const standFor = (place) => {
  const url = place.querySelector("img")?.src ?? place.dataset.thumbnail;
  const image = document.createElement("img");
  if (url) Object.assign(image, { src: url, alt: place.dataset.key });
  standIn.querySelector(".shown").replaceChildren(...(url ? [image] : []));
  const name = document.createElement("b");
  name.textContent = place.dataset.key;
  standIn.querySelector(".facts").replaceChildren(name);
  caption.dataset.waits = "";
};

// What is said below the box, always as text.
const describe = () => {
  const typed = box.shown && box.typed.get(idOf(box.shown));
  const known = box.shown && box.known.get(idOf(box.shown));
  const words = known?.words ?? "";
  const state = typed ? (typed.problem ? gettext("NOT SAVED") : gettext("saving …")) : known?.saved ? gettext("saved") : "";
  wordsLine.textContent = [words, state].filter(Boolean).join(" · ");
  wordsLine.classList.toggle("bad", Boolean(known?.over || typed?.problem));
  const failed = [...box.typed.values()].filter((entry) => entry.problem);
  const first = typed?.problem ? typed : failed[0];
  unsaved.hidden = !first;
  unsaved.failed = first;
  const sentences = first ? [gettext("The caption of {image} is not saved: {problem}", { image: first.key, problem: first.problem })] : [];
  if (failed.length > 1) sentences.push(gettext("{count} more not saved.", { count: failed.length - 1 }));
  const said = sentences.join(" ");
  const line = unsaved.querySelector("p");
  if (line.textContent !== said) line.textContent = said; // a screen reader says it once
};

// Saving: one request at a time, with all that is not saved

let saveTimer = 0;
let sending = null;
const saveIn = (milliseconds) => {
  saveTimer ||= setTimeout(save, milliseconds);
};
const save = () => {
  clearTimeout(saveTimer);
  saveTimer = 0;
  sending ??= send().finally(() => {
    sending = null;
    mark();
    describe();
    const left = [...box.typed.values()];
    if (left.some((entry) => !entry.problem)) saveIn(SAVE_MILLISECONDS);
    else if (left.some((entry) => entry.again)) saveIn(RETRY_MILLISECONDS);
    else refresh();
  });
  return sending;
};
const saved = async () => {
  await sending; // what was typed since goes with the next
  await save();
};
const send = async () => {
  const batch = [...box.typed.values()].map((entry) => ({ ...entry }));
  if (batch.length === 0) return;
  try {
    const answer = await post(batch);
    answer.refused.forEach(refuse);
    answer.saved.forEach((news) => {
      learn({ ...news, saved: true });
      if (box.typed.get(idOf(news))?.number === news.number) box.typed.delete(idOf(news));
      box.unheard = true;
    });
  } catch (error) {
    console.info("The captions were not taken:", error.message);
    const sentence = gettext("The studio does not answer. This page keeps the text and keeps trying: leave it open.");
    batch.forEach(({ dataset, key, number }) => refuse({ dataset, key, number, sentence, again: true }));
  }
  if (!isTouched()) show(box.shown);
};
const refuse = ({ dataset, key, number, sentence, again }) => {
  const entry = box.typed.get(idOf({ dataset, key }));
  if (entry?.number === number) Object.assign(entry, { problem: sentence, again: Boolean(again) });
};
const post = async (batch) => {
  const captions = batch.map(({ dataset, key, text, number }) => ({ dataset, key, text, number, page: box.page }));
  const session = document.querySelector("#brought")?.textContent.trim().split(" ")[2] ?? box.page;
  const body = JSON.stringify({ data: [captions], session_hash: session });
  const response = await fetch("gradio_api/run/save_captions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body,
    keepalive: body.length < KEEPALIVE_CHARACTERS,
    signal: AbortSignal.timeout(ANSWER_MILLISECONDS),
  });
  if (!response.ok) throw new Error(`HTTP ${response.status}`);
  return (await response.json()).data[0];
};
// The rest of the page hears of it when nobody types any more.
const refresh = () => {
  if (!box.unheard || document.activeElement === area) return;
  box.unheard = false;
  document.dispatchEvent(new Event("studio:look"));
};

// What happens

listen(area, "input", () => {
  if (!box.shown) return;
  box.number += 1;
  box.typed.set(idOf(box.shown), { ...box.shown, text: area.value, number: box.number });
  showTags();
  describe();
  saveIn(SAVE_MILLISECONDS);
});
listen(area, "blur", () => {
  box.unheard = true; // another page may have changed this caption meanwhile
  if (box.typed.size > 0) save();
  else settle();
});
listen(unsaved.querySelector("button"), "click", () => {
  box.typed.delete(idOf(unsaved.failed));
  show(box.shown);
  settle();
});
// An untouched box follows what the studio said last.
const settle = () => {
  if (isTouched()) return;
  if (box.shown && box.shown.dataset !== shownDataset()) show(null);
  else show(box.shown);
  mark();
  refresh();
};
listen(document, "studio:grid", () => {
  if (!grid()) return;
  const stamp = JSON.parse(grid().dataset.stamp);
  images().forEach(({ dataset: { key, caption: text } }) => learn({ dataset: shownDataset(), key, caption: text, stamp }));
  cover();
  settle();
  recall();
  if ([...box.typed.values()].some((entry) => entry.problem)) saveIn(SAVE_MILLISECONDS); // perhaps it can be now
});
watch("row", () => {
  const { row } = props;
  if (!row) return;
  if (!row.gone) learn(row);
  const isShown = !box.shown || (box.shown.key === row.key && box.shown.dataset === row.dataset);
  if (isShown) delete caption.dataset.waits;
  else caption.dataset.waits = ""; // it is of an image that was left meanwhile
  if (isShown && row.gone && !isTouched()) show(null);
  settle();
});
listen(document, "click", (event) => {
  const thumb = event.target.closest?.("#dataset-grid .thumb");
  if (thumb && !(event.shiftKey || event.ctrlKey || event.metaKey)) choose(thumb); // with them it is selected
  if (event.target.closest?.("#dataset-previous")) step(-1);
  if (event.target.closest?.("#dataset-next")) step(1);
});
// Closing the page: what is not under way yet is sent; where that failed before, the browser asks.
listen(window, "pagehide", () => {
  if (box.typed.size > 0) post([...box.typed.values()]).catch(() => {});
});
listen(window, "beforeunload", (event) => {
  if ([...box.typed.values()].some((entry) => entry.problem)) event.preventDefault();
});

const subject = () => {
  const about = { dataset: shownDataset(), key: "", ...box.shown };
  return { ...about, selected: window.selectedImages?.dataset === about.dataset ? [...window.selectedImages.keys] : [] };
};
Object.assign(box, { saved, choose, subject });
document.dispatchEvent(new Event("studio:grid"));
