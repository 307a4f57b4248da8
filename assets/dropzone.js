// Runs in the Dataset tab's drop zone: `element`, `trigger` are Gradio's. A folder keeps its sub-folders: the
// browser's own file list would lose them.
const zone = element.querySelector(".dropzone");
const status = element.querySelector(".drop-status");
const cancel = element.querySelector(".drop-cancel");
const PART = 200; // files a request; the server takes 1,000
const ROOM_FULL = 507; // its answer says in a sentence how much there is
let aborter = null;
let sent = []; // what has arrived of the drop that is on its way

const readAll = async (reader) => {
  const all = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) return all;
    all.push(...some);
  }
};
const walk = async (entry, into) => {
  if (entry.isDirectory) {
    for (const child of await readAll(entry.createReader())) await walk(child, into);
  } else {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    into.push({ file, rel: entry.fullPath.replace(/^\//, "") });
  }
};
const written = (number) => number.toLocaleString(document.documentElement.lang || "en");
const say = (words, kind = "") => {
  status.textContent = words;
  status.className = `drop-status ${kind}`;
};
// Nothing of a drop that is not taken in stays with the studio.
const discard = (files) => {
  for (let start = 0; start < files.length; start += PART) {
    const paths = files.slice(start, start + PART).map(({ path }) => path);
    fetch("gradio_api/run/discard_uploads", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ data: [paths] }),
      keepalive: true,
    });
  }
};
const failure = async (answer) => {
  if (answer.status === ROOM_FULL) return answer.text();
  if (answer.status === 413) return gettext("a file is larger than 8 GB.");
  return gettext("the studio answered {status}.", { status: answer.status });
};
const send = async (found) => {
  if (aborter) return say(gettext("An upload is already running. Wait for it, or cancel it."), "bad");
  if (found.length === 0) return say(gettext("The drop contains no files."), "bad");
  aborter = new AbortController();
  cancel.hidden = false;
  const files = (sent = []);
  try {
    for (let start = 0; start < found.length; start += PART) {
      say(gettext("Uploading: {done} of {count} files", { done: written(start), count: written(found.length) }));
      const part = found.slice(start, start + PART);
      const form = new FormData();
      part.forEach(({ file }) => form.append("files", file, file.name));
      const answer = await fetch("gradio_api/upload", { method: "POST", body: form, signal: aborter.signal });
      if (!answer.ok) throw new Error(await failure(answer));
      const paths = await answer.json();
      part.forEach(({ rel }, i) => files.push({ rel, path: paths[i] }));
    }
    say(gettext("Reading {count} files", { count: written(files.length) }));
    trigger("upload", { files });
  } catch (error) {
    discard(files);
    const reason = error.message;
    if (error.name === "AbortError") say(gettext("Cancelled: nothing was kept."), "bad");
    else say(gettext("The upload failed: {reason} Nothing was kept; try again.", { reason }), "bad");
  } finally {
    aborter = null;
    cancel.hidden = true;
  }
};

// Also called by the page's script, with what was dropped elsewhere on the tab.
zone.takeEntries = async (entries) => {
  say(gettext("Looking through the folder"));
  const found = [];
  try {
    for (const entry of entries) await walk(entry, found);
  } catch (error) {
    const reason = error.message;
    return say(gettext("The browser could not read what was dropped: {reason}. Type its path instead.", { reason }), "bad");
  }
  return send(found);
};
window.addEventListener("pagehide", () => aborter && discard(sent));
const choose = (directory) => {
  const input = document.createElement("input");
  input.type = "file";
  input.multiple = true;
  input.webkitdirectory = directory;
  input.addEventListener("change", () =>
    send([...input.files].map((file) => ({ file, rel: file.webkitRelativePath || file.name }))),
  );
  input.click();
};
element.querySelector(".choose-folder").addEventListener("click", () => choose(true));
element.querySelector(".choose-files").addEventListener("click", () => choose(false));
cancel.addEventListener("click", () => aborter?.abort());
zone.addEventListener("dragover", (event) => {
  event.preventDefault();
  zone.classList.add("over");
});
zone.addEventListener("dragleave", () => zone.classList.remove("over"));
zone.addEventListener("drop", (event) => {
  event.preventDefault();
  event.stopPropagation();
  zone.classList.remove("over");
  zone.takeEntries([...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean));
});
watch("outcome", () => say(props.outcome?.words ?? "", props.outcome?.kind ?? ""));
