() => {
  document.documentElement.style.setProperty("--not-done", JSON.stringify(gettext("Not done"))); // for studio.css
  // Numbers as the page's language writes them.
  const numberWords = (value, digits = 0) =>
    value.toLocaleString(document.documentElement.lang, { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const decimalMark = (0.5).toLocaleString(document.documentElement.lang).charAt(1);
  const asWritten = (value) => String(value).replace(".", decimalMark); // with its own digits

  // Links of the status line lead to a tab, and open what they name.
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("[data-tab]");
    if (!link) return;
    event.preventDefault();
    clickTab(tabId(link.dataset.tab));
    if (link.dataset.mode) requestAnimationFrame(() => requestAnimationFrame(() => clickTab(tabId(link.dataset.mode))));
    closePanel();
  });

  // The line at the top opens the panel of model and device.
  const panel = () => document.getElementById("tab-engine");
  const isOpen = () => document.body.classList.contains("panel-open");
  let openedBy = "";
  const openPanel = (name) => {
    openedBy = name;
    document.body.classList.add("panel-open");
    panel().setAttribute("role", "dialog");
    panel().setAttribute("aria-label", gettext("Model and device"));
    document.dispatchEvent(new Event("studio:look"));
    const box = document.getElementById(name);
    box.tabIndex = -1;
    box.focus();
  };
  const closePanel = () => document.body.classList.remove("panel-open");
  document.addEventListener("click", ({ target, isTrusted }) => {
    const name = target.closest?.("[data-panel]")?.dataset.panel;
    if (name) return isOpen() && openedBy === name ? closePanel() : openPanel(name);
    if (!isTrusted) return; // the page's script presses hidden buttons
    if (isOpen() && target.isConnected && !panel().contains(target) && !target.closest("dialog, .options, .toast-wrap")) closePanel();
  });
  // A model of the list goes through the form: what is wrong with it is said there.
  document.addEventListener("click", ({ target }) => {
    const name = target.closest?.("[data-model]")?.dataset.model;
    if (!name) return;
    const box = document.querySelector("#model-model :is(textarea, input)");
    box.value = name;
    box.dispatchEvent(new Event("input", { bubbles: true }));
    requestAnimationFrame(() => requestAnimationFrame(() => document.getElementById("load-model").click()));
  });

  // An image opens large: arrows go through those that lie beside it, 1 shows one pixel for one, S saves, Escape closes.
  const make = (name, properties, ...children) => {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children);
    return element;
  };
  // A click beside it closes it, and closed it is gone.
  const makeDialog = (className, ...children) => {
    const dialog = make("dialog", { className }, ...children);
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    return dialog;
  };
  const scaleWords = (scale, digits) => {
    const words = gettext("shown × {scale}", { scale: numberWords(scale, digits) });
    return `, ${words}`;
  };
  const openLarge = (images, index) => {
    const large = make("img");
    const words = make("p", { className: "quiet" });
    words.setAttribute("role", "status");
    const save = make("a", { textContent: gettext("Save"), className: "button" });
    const button = (textContent, onclick) => make("button", { type: "button", textContent, onclick });
    const describe = () => {
      const shown = large.naturalWidth && large.clientWidth / large.naturalWidth;
      const size = `${large.naturalWidth} × ${large.naturalHeight}`;
      const scale = shown && Math.abs(shown - 1) > 0.02 ? scaleWords(shown, shown < 10 ? 1 : 0) : "";
      const place = images.length > 1 && gettext("{number} of {total}", { number: index + 1, total: images.length });
      words.textContent = [large.alt, size + scale, place].filter(Boolean).join(" · ");
    };
    const put = ({ src, alt }) => {
      Object.assign(large, { src, alt });
      dialog.setAttribute("aria-label", alt);
      Object.assign(save, { href: src, download: `${alt.slice(0, 60).replace(/[^\p{L}\p{N} _-]+/gu, "") || "image"}.png` });
    };
    const show = (i) => {
      index = (i + images.length) % images.length;
      put(images[index]);
      images[index].open?.();
    };
    const actual = button("1 : 1", () => {
      actual.setAttribute("aria-pressed", large.classList.toggle("actual"));
      describe();
    });
    actual.setAttribute("aria-pressed", "false");
    const steps = images.length > 1 ? [button(gettext("‹ Previous"), () => show(index - 1)), button(gettext("Next ›"), () => show(index + 1))] : [];
    const actions = make("div", { className: "lightbox-actions" }, ...steps, actual, save, button(gettext("Close"), () => dialog.close()));
    const dialog = makeDialog("lightbox", large, words, actions);
    large.onload = describe;
    large.onclick = () => dialog.close();
    dialog.addEventListener("keydown", (event) => {
      const act = { ArrowLeft: () => show(index - 1), ArrowRight: () => show(index + 1), 1: () => actual.click(), s: () => save.click() }[event.key];
      event.stopPropagation(); // the page's own keys are not for what lies behind
      if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      act();
    });
    // Of an image of a set the page knows a small copy, until it shows the image itself.
    const follow = new MutationObserver(() => {
      const whole = images[index].whole?.();
      if (whole && large.src !== whole.src) put(whole);
    });
    if (images[index].whole) follow.observe(document.body, { childList: true, subtree: true, attributes: true, attributeFilter: ["src"] });
    dialog.addEventListener("close", () => follow.disconnect());
    dialog.showModal();
    show(index);
  };
  // A past image and one of a dataset stand alone in their place: the arrows go through the set that they are of, and
  // the page shows the one where they stop. `shown` is the member whose image the page shows.
  const SETS = [
    {
      from: "#generate-pictures:has(.past-head)",
      members: () => [...document.querySelectorAll("#generate-strip .past-open")],
      name: (member) => member.dataset.image,
      shown: () => document.querySelector("#generate-pictures .past-head [data-image]")?.dataset.image,
      choose: (member) => member.click(),
      whole: () => document.querySelector("#generate-pictures .zoom img"),
    },
    {
      from: "#dataset-picture",
      members: () => [...document.querySelectorAll("#dataset-grid .thumb")],
      name: (member) => member.dataset.key,
      shown: () => document.querySelector("#dataset-picture .shown[data-key]")?.dataset.key,
      choose: (member) => window.captionBox.choose(member), // a click would clear what is selected
      whole: () => document.querySelector("#dataset-picture .zoom img"),
    },
  ];
  const OPEN_MILLISECONDS = 150; // of images gone through fast, the page shows the last
  const setOf = (image) => {
    const set = SETS.find(({ from }) => image.closest(from));
    if (!set) return null;
    const shown = set.shown();
    const names = set.members().map(set.name);
    if (!names.includes(shown)) return null; // it is on another page of them
    let timer = 0;
    const memberOf = (name) => set.members().find((member) => set.name(member) === name);
    const images = names.map((name) => ({
      get src() { return name === set.shown() ? set.whole().src : (memberOf(name)?.querySelector("img")?.src ?? ""); },
      alt: name === shown ? image.alt : (memberOf(name).querySelector("img")?.alt || memberOf(name).dataset.key || ""),
      whole: () => (name === set.shown() ? set.whole() : null),
      open: () => {
        clearTimeout(timer);
        timer = setTimeout(() => name !== set.shown() && memberOf(name) && set.choose(memberOf(name)), OPEN_MILLISECONDS);
      },
    }));
    return { images, index: names.indexOf(shown) };
  };
  document.addEventListener("click", (event) => {
    const image = event.target.closest?.("button.zoom")?.querySelector("img");
    if (!image) return;
    const set = setOf(image);
    if (set) return openLarge(set.images, set.index);
    const panel = image.closest('[role="tabpanel"]') ?? document;
    const beside = [...panel.querySelectorAll("button.zoom img")].filter((other) => other.checkVisibility());
    openLarge(beside, beside.indexOf(image));
  });

  // How many times its size an image is shown.
  const tellScale = (image) => {
    const place = image.closest(".card")?.querySelector(".scale");
    const scale = image.naturalWidth && image.clientWidth / image.naturalWidth;
    if (place) place.textContent = scale && Math.abs(scale - 1) > 0.05 ? scaleWords(scale, 1) : "";
    // Of a run's images larger ones are small copies: their own size is not known here.
    const { naturalWidth: width, naturalHeight: height } = image;
    const line = scale && Math.max(width, height) < 256 && image.closest(".scrubber")?.querySelector(".shown-size");
    if (line) line.textContent = `${width} × ${height}${Math.abs(scale - 1) > 0.05 ? scaleWords(scale, 1) : ""}`;
  };
  const SCALED = ".card .zoom img, .scrubber .shot img";
  document.addEventListener("load", ({ target }) => target.matches?.(SCALED) && tellScale(target), true);
  window.addEventListener("resize", () => document.querySelectorAll(SCALED).forEach(tellScale));

  // The keys, told under "?".
  const KEYS = [
    [gettext("Ctrl or ⌘ + Enter"), gettext("Run the smoke test, generate, or compare")],
    [gettext("Esc"), gettext("Cancel what runs, or close what is open")],
    ["1, 2, 3", gettext("Blind vote: left, right, neither")],
    ["← →", gettext("Dataset: the image before or after. Image opened large: the same")],
    ["X", gettext("Dataset: exclude or include the selected images, else the one that is shown")],
    [gettext("Shift + arrows"), gettext("Dataset: move the crop of the image that is shown")],
    [gettext("Shift or Ctrl + click"), gettext("Dataset: select several images. Ctrl or ⌘ + A: all of the page, Esc: none")],
    [gettext("Enter"), gettext("Dataset: to the caption, and back")],
    [gettext("Ctrl or ⌘ + Z, Y"), gettext("Dataset: undo, redo")],
    ["1, S", gettext("Image opened large: one pixel for one, save")],
    ["?", gettext("These keys")],
  ];
  const tellKeys = () => {
    const rows = KEYS.map(([keys, words]) => make("tr", {}, make("th", { scope: "row", textContent: keys }), make("td", { textContent: words })));
    const close = make("button", { type: "button", textContent: gettext("Close"), onclick: () => dialog.close() });
    const dialog = makeDialog("lightbox keys", make("h2", { textContent: gettext("Keys") }), make("table", {}, make("tbody", {}, ...rows)), close);
    dialog.setAttribute("aria-label", gettext("Keys"));
    dialog.showModal();
  };
  document.addEventListener("click", (event) => event.target.closest?.("#tell-keys") && tellKeys());
  document.addEventListener("keydown", (event) => {
    if (event.key === "?" && !event.target.matches?.("input, textarea, select, [contenteditable]") && !document.querySelector("dialog[open]")) tellKeys();
  });

  // When long work ends, those who asked for it are told, where they look at something else meanwhile.
  const bell = () => document.querySelector("#notify");
  const wanted = () => localStorage.getItem("notify") === "yes" && window.Notification?.permission === "granted";
  const showBell = () => {
    bell()?.setAttribute("aria-pressed", wanted());
    if (bell()) bell().title = wanted() ? gettext("You are notified when work ends") : gettext("Notify me when work ends");
  };
  document.addEventListener("click", async (event) => {
    if (!event.target.closest?.("#notify")) return;
    const permission = wanted() ? "denied" : await window.Notification?.requestPermission();
    localStorage.setItem("notify", permission === "granted" ? "yes" : "no");
    showBell();
    if (permission === "denied" && window.Notification?.permission === "denied") bell().title = gettext("Your browser blocks notifications of this page");
  });
  document.addEventListener("studio:ended", ({ detail }) => {
    if (wanted() && document.hidden) new Notification("LoRA Studio", { body: detail, tag: "studio" });
  });
  requestAnimationFrame(function wait() {
    if (bell()) showBell();
    else requestAnimationFrame(wait);
  });

  // Of several modes, one is on the screen: its buttons are the ones that the keys press.
  const pressShown = (selectors) => {
    const button = [...document.querySelectorAll(selectors)].find((b) => b.checkVisibility({ visibilityProperty: true }) && !b.disabled);
    button?.click();
    return Boolean(button);
  };
  const typing = (element) => element.matches?.("input, textarea, select, [contenteditable]");

  // Whether a list hung open as Escape was pressed: Gradio closes it before the key arrives below.
  let listWasOpen = false;
  document.addEventListener("keydown", () => { listWasOpen = Boolean(document.querySelector('[role="combobox"][aria-expanded="true"]')); }, true);

  // Ctrl+Enter runs, Escape cancels (unless something open takes the Escape), 1 2 3 vote.
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      if (pressShown("#run-smoke, #run-generate, #run-compare")) event.preventDefault();
    }
    if (event.key === "Escape" && listWasOpen) return;
    if (event.key === "Escape" && isOpen() && !document.querySelector("dialog[open]")) {
      closePanel();
      document.querySelector(`[data-panel="${openedBy}"]`)?.focus();
    } else if (event.key === "Escape" && !document.querySelector("dialog[open]")) {
      // A question that waits for an answer goes before work that runs.
      if (pressShown("[id$='-trash-not'], [id$='-label-cancel']")) return;
      pressShown("#cancel-smoke, #cancel-generate, #cancel-compare, #cancel-load, #taken-cancel");
    }
    if (["1", "2", "3"].includes(event.key) && !typing(event.target)) pressShown(`#vote-${event.key}`);
  });

  // The Dataset tab's keys; while one types a caption only Escape, which leaves it.
  document.addEventListener("keydown", (event) => {
    if (!document.querySelector("#dataset-detail")?.checkVisibility({ visibilityProperty: true }) || document.querySelector("dialog[open]")) return;
    const caption = document.querySelector("#dataset-caption textarea");
    if (event.target === caption) {
      if (event.isComposing) return; // Enter and Escape choose among an input method's words
      if (event.key === "Escape" || (event.key === "Enter" && !event.shiftKey)) {
        event.preventDefault();
        caption.blur();
      }
      return;
    }
    if (typing(event.target) || event.altKey || event.target.closest?.('[role="tablist"], [role="listbox"]')) return;
    if (event.ctrlKey || event.metaKey) {
      const step = { z: event.shiftKey ? "#dataset-redo" : "#dataset-undo", y: "#dataset-redo" }[event.key.toLowerCase()];
      if (step && pressShown(step)) event.preventDefault();
      return;
    }
    const button = { ArrowLeft: "#dataset-previous", ArrowRight: "#dataset-next", x: "#dataset-exclude" }[event.key];
    if (button && pressShown(button)) {
      event.preventDefault();
      document.activeElement.closest(".thumb")?.blur(); // the next Enter is not for the picture that was left
    }
    const onPicture = event.target === document.body || event.target.matches?.(".thumb[aria-current]");
    if (event.key === "Enter" && onPicture && !caption.disabled) {
      event.preventDefault();
      caption.focus();
    }
  });

  // A training's picture, looked at closely: arrows go through the steps, Escape closes.
  document.addEventListener("keydown", (event) => {
    const box = document.querySelector("#training-closer");
    if (!box?.checkVisibility() || typing(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target !== document.body && !box.contains(event.target)) return;
    const button = { ArrowLeft: "#closer-previous-step", ArrowRight: "#closer-next-step", Escape: "#closer-close" }[event.key];
    if (button && pressShown(button)) event.preventDefault();
  });

  // A file dropped anywhere goes where it belongs: a LoRA to the library, a picture to the form, a folder to Dataset,
  // a training's settings to its form, prompts to Batch.
  const nextFrames = async (find, framesLeft = 60) => {
    for (; framesLeft > 0; framesLeft -= 1) {
      const found = find();
      if (found) return found;
      await new Promise(requestAnimationFrame);
    }
    return null;
  };
  const tabId = (name) => name.toLowerCase().replaceAll(" ", "-"); // of its English name, as `gr.Tab` has it
  const clickTab = (id) => document.querySelector(`button[role="tab"][data-tab-id="${id}"]`)?.click();
  const handOver = async (files, { tabs, box, zone }) => {
    if (files.length === 0) return;
    for (const id of tabs) {
      clickTab(id);
      await nextFrames(() => document.querySelector(`button[role="tab"][aria-selected="true"]`)?.textContent, 4);
    }
    const section = await nextFrames(() => document.getElementById(box));
    section?.querySelector(".label-wrap:not(.open)")?.click();
    const input = await nextFrames(() => document.querySelector(`#${zone} input[type="file"], input[type="file"]:has(+ #${zone})`));
    if (!input) return;
    const carrier = new DataTransfer();
    files.slice(0, input.multiple ? files.length : 1).forEach((file) => carrier.items.add(file));
    input.files = carrier.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    section.scrollIntoView({ block: "center" });
  };
  const ours = (event) => event.dataTransfer?.types.includes("Files") && !event.target.closest?.("#drop-lora, #drop-picture, #dataset-drop, #short-drop");
  const shownTab = () => document.querySelector('#tabs > .tab-wrapper button[role="tab"][aria-selected="true"]')?.dataset.tabId;
  // The browser forgets the entries once the event is over, so they are taken before the tab is opened.
  const dropOnDatasets = async (entries) => {
    const short = document.querySelector("#short-drop .dropzone");
    if (!short?.checkVisibility()) clickTab("dataset");
    const zone = short?.checkVisibility() ? short : await nextFrames(() => document.querySelector("#dataset-drop .dropzone"));
    await nextFrames(() => zone?.takeEntries);
    zone?.scrollIntoView({ block: "center" });
    zone?.takeEntries?.(entries);
  };
  document.addEventListener("dragover", (event) => ours(event) && event.preventDefault());
  document.addEventListener("drop", async (event) => {
    if (!ours(event)) return;
    event.preventDefault();
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const files = [...event.dataTransfer.files];
    const isPicture = (file) => /\.(png|jpe?g|webp)$/i.test(file.name);
    const isDataset = (entry) => entry.isDirectory || /\.zip$/i.test(entry.name);
    const isShort = document.querySelector("#short-drop .dropzone")?.checkVisibility() && files.some(isPicture);
    if (shownTab() === "dataset" || isShort || entries.some(isDataset)) return dropOnDatasets(entries);
    const isSettings = (file) => /\.json$/i.test(file.name);
    if (files.every(isSettings)) return handOver(files, { tabs: ["training"], box: "training-load-settings", zone: "training-load-settings" });
    if (await window.takePrompts?.(files)) return;
    await handOver(files.filter((f) => !isPicture(f)), { tabs: ["inference", "lora-library"], box: "lora-box", zone: "drop-lora" });
    await handOver(files.filter(isPicture), { tabs: ["inference", "generate"], box: "drop-box", zone: "drop-picture" });
  });

  // What was measured was measured for the settings of a moment: where the form holds others, it says so.
  const shown = (value) => String(value ?? "").trim();
  document.addEventListener("studio:form", () => {
    for (const box of document.querySelectorAll(".forecast")) {
      const now = window.keptForms?.[box.dataset.form] ?? {};
      const others = JSON.parse(box.dataset.madeFor).filter(([name, , value]) => name in now && shown(now[name]) !== shown(value));
      const labels = [...new Set(others.map(([, label]) => label))];
      const fields = labels.slice(0, 4).join(", ") + (labels.length > 4 ? ", …" : "");
      const { button } = box.dataset;
      const old = box.querySelector(".old");
      old.hidden = labels.length === 0;
      old.textContent = labels.length ? gettext("For other settings than the form has now ({fields}). Press “{button}” again.", { fields, button }) : "";
    }
  });

  // What is wrong with a field stands at it until it changes; a press leads to the first such field.
  const problemsAtFields = () => {
    const texts = new Map();
    for (const box of document.querySelectorAll(".field-errors")) {
      const now = window.keptForms?.[box.dataset.form] ?? {};
      const isStill = ({ name, value }) => !(name in now) || shown(now[name]) === shown(value);
      const problems = JSON.parse(box.dataset.problems).filter(({ fields }) => fields.every(isStill));
      box.dataset.problems = JSON.stringify(problems);
      for (const { text, fields } of problems) for (const { id } of fields) texts.set(id, new Set(texts.get(id)).add(text));
      const number = new Set(problems.flatMap(({ fields }) => fields.map(({ id }) => id))).size;
      const line = box.querySelector("p");
      line.hidden = number === 0;
      const need = number === 1 ? gettext("1 field needs fixing.") : gettext("{number} fields need fixing.", { number });
      const words = `${need} ${line.dataset.elsewhere}`.trim();
      if (line.textContent !== words) line.textContent = words;
    }
    return texts;
  };
  const markField = (field, texts) => {
    const id = `${field.id}-error`;
    const line = document.getElementById(id) ?? Object.assign(document.createElement("p"), { id, className: "field-error" });
    const words = [...texts].join(" ");
    if (line.textContent !== words) line.textContent = words;
    if (line.parentElement !== field) field.append(line);
    for (const input of field.querySelectorAll("input, textarea")) {
      if (input.getAttribute("aria-invalid") === "true") continue;
      input.setAttribute("aria-invalid", "true");
      input.setAttribute("aria-describedby", id);
    }
  };
  const clearField = (field) => {
    document.getElementById(`${field.id}-error`)?.remove();
    for (const input of field.querySelectorAll("[aria-invalid]")) {
      input.removeAttribute("aria-invalid");
      input.removeAttribute("aria-describedby");
    }
  };
  let marked = [];
  const markFields = () => {
    const texts = problemsAtFields();
    marked.filter((id) => !texts.has(id)).map((id) => document.getElementById(id)).filter(Boolean).forEach(clearField);
    marked = [...texts.keys()];
    for (const [id, words] of texts) {
      const field = document.getElementById(id);
      if (field) markField(field, words);
    }
    // Gradio makes the fields of a folded section anew when it is opened.
    remade.disconnect();
    if (texts.size) remade.observe(document.body, { childList: true, subtree: true });
  };
  let markedSoon = false;
  const remade = new MutationObserver(() => {
    if (markedSoon) return;
    markedSoon = true;
    requestAnimationFrame(() => {
      markedSoon = false;
      markFields();
    });
  });
  const leadToField = async ({ id, sections }) => {
    for (const section of sections) {
      const label = await nextFrames(() => document.querySelector(`#${section} .label-wrap`));
      if (label && !label.classList.contains("open")) label.click();
    }
    const field = await nextFrames(() => document.getElementById(id));
    field?.scrollIntoView({ block: "center" });
    field?.querySelector("textarea, input:not([type=range], [role=listbox])")?.focus({ preventScroll: true });
  };
  window.leadToField = leadToField; // from the sentences of the short way
  const ledTo = new Set();
  document.addEventListener("studio:form", () => {
    markFields();
    for (const box of document.querySelectorAll(".field-errors")) {
      const { pressed, problems } = box.dataset;
      if (!pressed || ledTo.has(pressed)) continue;
      ledTo.add(pressed);
      const first = JSON.parse(problems)[0]?.fields[0];
      if (first) leadToField(first);
    }
  });

  // A reload, which Gradio also does when its studio was started again, leads back to the tab and the mode of before.
  const TAB_LISTS = ["tabs", "modes"];
  document.addEventListener("click", (event) => {
    const tab = event.target.closest?.('button[role="tab"]');
    const list = TAB_LISTS.find((id) => tab?.closest(`#${id} > .tab-wrapper`));
    if (list) sessionStorage.setItem(list, tab.dataset.tabId);
  });
  (async () => {
    const shown = TAB_LISTS.map((list) => sessionStorage.getItem(list));
    for (const id of shown.toReversed().filter(Boolean)) {
      await nextFrames(() => clickTab(id) ?? true);
    }
  })();

  // Values under the pointer: the charts come as pictures, their points beside them.
  const PLOT = { left: 66, right: 14, top: 32, bottom: 50 };
  const plots = new WeakMap(); // a figure's curves, and between which x they lie
  const plotOf = (figure) => {
    if (!figure?.querySelector("svg.chart")) return null;
    if (!plots.has(figure)) {
      const curves = JSON.parse(figure.dataset.curves).filter((curve) => curve.xs.length);
      const all = curves.flatMap((curve) => [curve.xs[0], curve.xs.at(-1)]);
      const [low, high] = [Math.min(...all), Math.max(...all)];
      plots.set(figure, { curves, low: low < high ? low : low - 1, high: low < high ? high : high + 1 });
    }
    return plots.get(figure);
  };
  const upright = (svg, className, at) => {
    svg.querySelector(`.${className}`)?.remove();
    const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    const ends = { class: className, x1: at, x2: at, y1: PLOT.top, y2: svg.viewBox.baseVal.height - PLOT.bottom };
    for (const [name, value] of Object.entries(ends)) line.setAttribute(name, value);
    svg.append(line);
  };
  const under = (event) => {
    const figure = event.target.closest?.(".chart-figure");
    const plot = plotOf(figure);
    if (!plot) return null;
    const svg = figure.querySelector("svg.chart");
    const box = svg.getBoundingClientRect();
    const { width } = svg.viewBox.baseVal;
    const inPlot = ((event.clientX - box.left) / box.width) * width;
    const share = (inPlot - PLOT.left) / (width - PLOT.left - PLOT.right);
    return share < 0 || share > 1 ? null : { figure, svg, inPlot, curves: plot.curves, x: plot.low + share * (plot.high - plot.low) };
  };
  document.addEventListener("pointermove", (event) => {
    const found = under(event);
    if (!found) return;
    const { figure, svg, inPlot, curves, x } = found;
    const nearest = (curve) => curve.xs.reduce((best, value, i) => (Math.abs(value - x) < Math.abs(curve.xs[best] - x) ? i : best), 0);
    const words = curves.map((curve) => `${curve.name} ${asWritten(curve.ys[nearest(curve)])}${figure.dataset.unit}`);
    const step = gettext("step {step}", { step: numberWords(Math.round(x)) });
    figure.querySelector(".chart-values").textContent = `${step}: ${words.join(" · ")}`;
    upright(svg, "pointer", inPlot);
  });

  // A run's images over its steps: the scrubber and the cursor of its plots move together, here in the browser.
  const scrubbedTo = {}; // by run, the step that somebody chose; without one, what the studio says
  const scrubber = () => document.querySelector("#training-samples .scrubber");
  const showStep = () => {
    const scrub = scrubber();
    if (!scrub) return;
    const steps = JSON.parse(scrub.dataset.steps);
    const wanted = scrubbedTo[scrub.dataset.run] ?? Number(scrub.dataset.shown);
    const index = steps.reduce((best, step, i) => (Math.abs(step - wanted) < Math.abs(steps[best] - wanted) ? i : best), 0);
    for (const part of scrub.querySelectorAll("[data-of-step]")) part.hidden = Number(part.dataset.ofStep) !== steps[index];
    const range = scrub.querySelector("input");
    if (range) range.value = index; // before the first step there are the base's images alone
    range?.setAttribute("aria-valuetext", index ? gettext("step {step}", { step: numberWords(steps[index]) }) : gettext("base, without the LoRA"));
    for (const figure of document.querySelectorAll("#tab-training .chart-figure")) {
      const plot = plotOf(figure);
      const svg = figure.querySelector("svg.chart");
      const at = plot && (steps[index] || Math.min(plot.low, 1)); // the base stands where the curves begin
      const share = plot && (at - plot.low) / (plot.high - plot.low);
      if (plot && share >= 0 && share <= 1) upright(svg, "cursor", PLOT.left + share * (svg.viewBox.baseVal.width - PLOT.left - PLOT.right));
      else svg?.querySelector(".cursor")?.remove();
    }
  };
  const scrubTo = (step) => {
    scrubbedTo[scrubber().dataset.run] = step;
    showStep();
  };
  document.addEventListener("input", ({ target }) => {
    if (target.matches?.(".scrubber input")) scrubTo(JSON.parse(scrubber().dataset.steps)[target.value]);
  });
  document.addEventListener("click", (event) => {
    const found = scrubber() && event.target.closest?.("#tab-training") && under(event);
    if (found) scrubTo(found.x);
  });
  document.addEventListener("studio:written", showStep);
  document.addEventListener("studio:scrub", ({ detail }) => scrubber() && scrubTo(detail));

  // The form of a training: a search that shows the fields it finds, and what differs from the preset, marked and named.
  const formBox = () => document.querySelector(".form-changes");
  const ruleOf = (name) => document.getElementById(name) ?? document.head.appendChild(Object.assign(document.createElement("style"), { id: name }));
  const write = (id, css) => ruleOf(id).textContent !== css && (ruleOf(id).textContent = css);
  const told = (value, labels) => {
    if (value === "" || value === null || value === undefined) return gettext("empty");
    if (typeof value === "boolean") return value ? gettext("true") : gettext("false");
    return typeof value === "number" ? asWritten(value) : (labels?.[value] ?? String(value).replaceAll("\n", " | "));
  };
  const sameValue = (one, other) => shown(one) === shown(other) || (shown(one) !== "" && shown(other) !== "" && Number(one) === Number(other));
  const markChanges = () => {
    const box = formBox();
    const now = window.keptForms?.training;
    if (!box || !now) return;
    const fields = JSON.parse(box.dataset.fields);
    const preset = JSON.parse(box.dataset.presets)[now.preset] ?? {};
    const others = Object.keys(preset).filter((name) => name in now && !sameValue(now[name], preset[name]));
    const chip = (name) => {
      const { label, choices } = fields[name];
      const [words, value] = [`${label} ${told(now[name], choices)}`, told(preset[name], choices)];
      const made = make("button", { type: "button", textContent: `${words} ✕`, title: gettext("The preset has {value}", { value }) });
      made.dataset.setting = name;
      made.setAttribute("aria-label", gettext("{words}: back to the preset’s {value}", { words, value }));
      return made;
    };
    const chips = box.querySelector(".chips");
    chips.hidden = others.length === 0;
    chips.replaceChildren(make("span", { className: "quiet", textContent: gettext("Not the preset’s:") }), ...others.map(chip));
    const dotted = [...others.map((name) => `#${fields[name].id}`), ...new Set(others.map((name) => fields[name].section).filter(Boolean).map((id) => `#${id} > .label-wrap`))];
    write("training-dots", dotted.length ? `${dotted.map((one) => `${one}::before`).join(", ")} { content: "●"; }` : "");
  };
  document.addEventListener("studio:form", markChanges);
  let unfolded = []; // by the search
  document.addEventListener("input", async ({ target }) => {
    if (target.id !== "training-search") return;
    const fields = Object.values(JSON.parse(formBox().dataset.fields));
    const wanted = target.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const found = fields.filter((field) => wanted.every((word) => field.words.includes(word)));
    const sections = new Set(fields.map((field) => field.section).filter(Boolean));
    const needed = wanted.length ? new Set(found.map((field) => field.section)) : new Set();
    const hidden = wanted.length ? fields.filter((field) => !found.includes(field)).map((field) => `#${field.id}`) : [];
    const away = wanted.length ? [...sections].filter((id) => !needed.has(id)).map((id) => `#${id}`) : [];
    const kept = found.map((field) => `#${field.id}`).join(", ") || "#none";
    const frames = wanted.length ? [`#tab-training .controls .fields:not(:has(${kept}))`, `#tab-training .controls .form:has(> #training-dataset):not(:has(${kept}))`] : [];
    const rules = [...hidden, ...away, ...frames];
    write("training-search-rule", rules.length ? `${rules.join(", ")} { display: none !important; }` : "");
    const said = formBox().querySelector("p");
    said.hidden = !wanted.length || found.length > 0;
    said.textContent = gettext("No setting has these words.");
    for (const id of sections) {
      const label = document.querySelector(`#${id} > .label-wrap`);
      const isOpen = label?.classList.contains("open");
      if (label && needed.has(id) && !isOpen) unfolded.push(id);
      if (label && (needed.has(id) ? !isOpen : isOpen && unfolded.includes(id))) label.click();
      if (!needed.has(id)) unfolded = unfolded.filter((other) => other !== id);
    }
  });

  // Another tab or window of the browser may have started something meanwhile.
  const look = () => document.visibilityState === "visible" && document.dispatchEvent(new Event("studio:look"));
  document.addEventListener("visibilitychange", look);
  window.addEventListener("focus", look);
}
