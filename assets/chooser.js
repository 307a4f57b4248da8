// Chooses a path of the machine that the studio runs on. `window.choosePath` is called by every "Browse…"; what a box takes
// is "folder", and the endings of files. A file that is dropped on a box is kept by the studio, where it is a text.
const make = (name, properties, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};
const ask = async (name, ...data) => {
  const answer = await fetch(`gradio_api/run/${name}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ data }),
  }).catch(() => null);
  if (!answer) return { problem: gettext("The studio does not answer.") };
  if (!answer.ok) return { problem: gettext("The studio answered {status}.", { status: answer.status }) };
  return (await answer.json()).data[0];
};
const RECENT = "recent folders";
const recent = () => JSON.parse(localStorage.getItem(RECENT) ?? "[]");
const remember = (folder) => localStorage.setItem(RECENT, JSON.stringify([...new Set([folder, ...recent()])].slice(0, 5)));
const join = (folder, name) => {
  const mark = folder.includes("\\") ? "\\" : "/";
  return folder.endsWith(mark) ? folder + name : folder + mark + name;
};
const lastName = (path) => path.split(/[\\/]/).filter(Boolean).at(-1) ?? path;

const open = (takes, now, note) =>
  new Promise((resolve) => {
    const [folder, file] = [takes.includes("folder"), takes.some((kind) => kind !== "folder")];
    const title = folder && file ? gettext("Choose a folder or a file") : folder ? gettext("Choose a folder") : gettext("Choose a file");
    let shown = { path: "", folders: [], files: [] };
    let chosen = now;
    const button = (textContent, onclick, className = "") => make("button", { type: "button", textContent, onclick, className });
    const path = make("input", { type: "text", spellcheck: false });
    path.setAttribute("aria-label", gettext("Folder"));
    const words = make("p", { className: "quiet" });
    words.setAttribute("role", "status");
    const places = make("div", { className: "chooser-places" });
    const list = make("ul", { className: "chooser-list" });
    const up = button(gettext("Up"), () => go(shown.parent));
    const choose = (value) => {
      chosen = value;
      remember(shown.path);
      dialog.close();
    };
    const here = button(gettext("Choose this folder"), () => choose(shown.path), "chooser-here");
    here.hidden = !folder;
    here.disabled = true; // until a folder is shown
    const cancel = button(gettext("Cancel"), () => dialog.close());
    const head = make("div", { className: "chooser-head" }, up, path);
    const dialog = make("dialog", { className: "lightbox chooser" }, make("h2", { textContent: title }), words, places, head, list, make("div", { className: "lightbox-actions" }, here, cancel));
    dialog.setAttribute("aria-label", title);
    const row = (name, act, kind) => make("li", {}, button(name, act, kind));
    const show = (found, { from = "" } = {}) => {
      words.textContent = [found.problem, found.more, note].filter(Boolean).join(" ");
      words.classList.toggle("bad", Boolean(found.problem));
      const known = new Set((found.places ?? []).map((place) => place.path));
      const others = recent().filter((folder) => !known.has(folder)).map((folder) => ({ title: lastName(folder), path: folder }));
      places.replaceChildren(...[...(found.places ?? []), ...others].map((place) => Object.assign(button(place.title, () => go(place.path)), { title: place.path })));
      if (found.problem) return;
      shown = found;
      here.disabled = false;
      if (!edited) path.value = found.path;
      up.disabled = !found.parent;
      const folders = found.folders.map((name) => row(name, () => go(join(found.path, name)), "is-folder"));
      const files = found.files.map((name) => row(name, () => choose(join(found.path, name)), "is-file"));
      const nothing = make("li", { className: "quiet", textContent: file ? gettext("Nothing in here fits.") : gettext("No folders in here.") });
      list.replaceChildren(...(folders.length + files.length ? [...folders, ...files] : [nothing]));
      list.scrollTop = 0;
      const rows = [...list.querySelectorAll("button")];
      if (!edited) (rows.find((one) => one.textContent === from) ?? rows[0] ?? (here.hidden ? cancel : here)).focus();
    };
    let asked = 0; // whoever is quicker than the disk wants what was asked for last
    let edited = false; // nor does an answer write over what is typed meanwhile, or take the focus from it
    path.addEventListener("input", () => (edited = true));
    const showFirst = async (wanted, options) => {
      const number = ++asked;
      edited = false;
      const found = await ask("list_folder", wanted, takes);
      if (number === asked) show(found, options);
    };
    const go = (folder) => {
      note = "";
      showFirst([folder], { from: folder === shown.parent ? lastName(shown.path) : "" });
    };
    path.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      go(path.value);
    });
    let typed = "";
    let typedAt = 0;
    list.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const rows = [...list.querySelectorAll("button")];
      const at = rows.indexOf(document.activeElement);
      const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
      if (to !== undefined) rows[Math.min(Math.max(to, 0), rows.length - 1)]?.focus();
      else if ((event.key === "Backspace" || event.key === "ArrowLeft") && shown.parent) go(shown.parent);
      else if (event.key === "ArrowRight") document.activeElement.matches(".is-folder") && document.activeElement.click();
      else if (event.key.length === 1 && event.key !== " ") {
        typed = (Date.now() - typedAt < 900 ? typed : "") + event.key.toLowerCase();
        typedAt = Date.now();
        rows.find((one) => one.textContent.toLowerCase().startsWith(typed))?.focus();
      } else return;
      event.preventDefault();
    });
    dialog.addEventListener("keydown", (event) => event.stopPropagation()); // the page's own keys are not for what lies behind
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(chosen);
    });
    document.body.append(dialog);
    dialog.showModal();
    showFirst([...[now].filter(Boolean), ...recent(), ""]);
  });

const inputOf = (field) => field?.querySelector("textarea, input");
// What listens to the box hears of it as if it were typed.
const say = (field) => inputOf(field)?.matches(":not([role=combobox])") && inputOf(field).dispatchEvent(new Event("input", { bubbles: true }));
const put = (field, value) => {
  inputOf(field).value = value;
  say(field);
};
const take = async (field, note) => {
  const now = inputOf(field).value;
  const chosen = await open(takesOf(field), now, note);
  if (chosen !== now) put(field, chosen);
};
window.choosePath = async (id, takes, now) => {
  const field = () => document.getElementById(id);
  const chosen = await open(takes, String(now ?? ""), "");
  requestAnimationFrame(() =>
    requestAnimationFrame(() => {
      if (chosen !== now) say(field());
      inputOf(field())?.focus();
    }),
  );
  return chosen;
};

const KEPT = [".txt", ".csv", ".tsv", ".jsonl"];
const takesOf = (field) =>
  [...field.classList].filter((name) => name.startsWith("takes-")).map((name) => name.slice(6)).map((kind) => (kind === "folder" ? kind : `.${kind}`));
const isKept = (file, takes) => KEPT.some((ending) => takes.includes(ending) && file.name.toLowerCase().endsWith(ending));
const keep = async (file) => {
  const form = new FormData();
  form.append("files", file, file.name);
  const answer = await fetch("gradio_api/upload", { method: "POST", body: form });
  if (!answer.ok) return { problem: gettext("The studio answered {status}.", { status: answer.status }) };
  return ask("keep_file", (await answer.json())[0]);
};
// Prompts that were dropped anywhere: false where they are none.
window.takePrompts = async ([file]) => {
  if (!isKept(file, KEPT)) return false;
  document.querySelector('button[role="tab"][data-tab-id="batch"]').click();
  const kept = await keep(file);
  const section = document.getElementById("batch-section-prompt-file-wildcards-precision");
  section.querySelector(".label-wrap:not(.open)")?.click();
  for (let frame = 0; frame < 60 && !document.getElementById("batch-prompt-file"); frame += 1) await new Promise(requestAnimationFrame);
  const field = document.getElementById("batch-prompt-file");
  field.scrollIntoView({ block: "center" });
  if (kept.path) put(field, kept.path);
  else take(field, kept.problem);
  return true;
};
// Before the page's own drops. A dataset may be dropped anywhere: the Dataset tab takes a copy.
const boxUnder = (event) => {
  const field = event.dataTransfer?.types.includes("Files") && event.target.closest?.(".path-field");
  return field && !field.closest("#tab-dataset, #training-dataset") ? field : null;
};
document.addEventListener("dragover", (event) => boxUnder(event) && event.preventDefault(), true);
document.addEventListener(
  "drop",
  async (event) => {
    const field = boxUnder(event);
    if (!field) return;
    event.preventDefault();
    event.stopPropagation();
    const takes = takesOf(field);
    const [file] = event.dataTransfer.files;
    const isFolder = event.dataTransfer.items[0]?.webkitGetAsEntry?.()?.isDirectory;
    const kept = !isFolder && file && isKept(file, takes) ? await keep(file) : {};
    if (kept.path) return put(field, kept.path);
    take(field, kept.problem || gettext("Browsers do not reveal where a dropped file or folder lies. Choose it here."));
  },
  true,
);
