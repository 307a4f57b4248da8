// Keeps the live parts true: asks at once after each refresh of the page, then as often as the studio says, and not at
// all while nothing goes on. What is not live is brought by a refresh of its area (the status line, or a tab of the
// page), which the area's hidden button asks for. Areas that nobody sees are left as they are until they are shown.
const RETRY_SECONDS = 2; // the studio does not answer: it may be started again
const LEAST_SECONDS_BETWEEN_WAKES = 0.4;

const rest = {}; // what the last refresh of each area brought besides live parts, as a digest
const wokenAt = {};
let session = ""; // without it Gradio describes all its components anew for every answer
let asking = false;
let askAgain = false;
let timer = 0;

// Focus and scrolling stay where HTML is written anew, for those who go by keyboard while a run adds to what they read.
const groupOf = (button) => button.dataset.focus.split(" ")[0];
const focusAgain = (place, focused) => {
  const all = [...place.querySelectorAll("[data-focus]:not(:disabled)")];
  const same = all.find((button) => button.dataset.focus === focused.dataset.focus);
  (same ?? all.find((button) => groupOf(button) === groupOf(focused)) ?? all[0])?.focus({ preventScroll: true });
};
const scrollers = (place) => [...place.querySelectorAll('[tabindex="0"]')];
const write = (place, html) => {
  const focused = document.activeElement?.closest("[data-focus], [tabindex='0']");
  const hadFocus = focused && place.contains(focused);
  const index = hadFocus ? scrollers(place).indexOf(focused) : -1;
  const scrolled = scrollers(place).map((box) => [box.scrollLeft, box.scrollTop]);
  place.innerHTML = html;
  scrollers(place).forEach((box, i) => scrolled[i] && ([box.scrollLeft, box.scrollTop] = scrolled[i]));
  if (index >= 0) scrollers(place)[index]?.focus({ preventScroll: true });
  else if (hadFocus) focusAgain(place, focused);
};

const areas = () => [...document.querySelectorAll('[id^="wake-"]')].map((button) => button.id.slice("wake-".length));
const isShown = (area) => area === "status" || Boolean(document.getElementById(`tab-${area}`)?.checkVisibility());
// Where the studio is gone, what the page shows is of before, and no press arrives.
let missed = 0;
const sayGone = (gone) => {
  document.body.classList.toggle("studio-gone", gone);
  const said = document.getElementById("studio-gone");
  if (!gone) said?.remove();
  else if (!said) {
    const words = gettext("The studio does not answer: it was stopped or is restarting. What you see may be out of date, and nothing you press reaches it. This page reconnects by itself.");
    const line = Object.assign(document.createElement("p"), { id: "studio-gone", className: "problem", textContent: words });
    line.setAttribute("role", "alert");
    document.getElementById("status-line")?.after(line);
  }
};
const places = () => [...document.querySelectorAll("[data-live]")];
const ask = async () => {
  if (!session) return; // the first refresh is on its way
  if (asking) {
    askAgain = true;
    return;
  }
  asking = true;
  askAgain = false;
  clearTimeout(timer);
  let seconds = RETRY_SECONDS;
  try {
    seconds = follow(await answer());
    missed = 0;
  } catch (error) {
    console.info("The studio did not answer:", error.message);
    missed += 1;
  }
  sayGone(missed >= 2); // one answer may be lost
  asking = false;
  if (askAgain) ask();
  else if (seconds > 0) timer = setTimeout(ask, 1000 * seconds);
};
const answer = async () => {
  const has = Object.fromEntries(places().map((place) => [place.dataset.live, place.dataset.digest ?? ""]));
  const response = await fetch("gradio_api/run/live", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ data: [has, sessionStorage.getItem("selection") ?? "", areas().filter(isShown)], session_hash: session }),
  });
  if (!response.ok) throw new Error(`HTTP ${response.status}`);
  return (await response.json()).data[0];
};
// What goes on stands in the title of the browser's tab.
let ahead = "";
const tell = (title) => {
  if (ahead && !title) document.dispatchEvent(new CustomEvent("studio:ended", { detail: gettext("Ended: {work}", { work: ahead.replace(/^\d+ % /, "") }) }));
  ahead = title;
  document.title = title ? `${title} · LoRA Studio` : "LoRA Studio";
};
const follow = (now) => {
  tell(now.title);
  for (const place of places()) {
    const part = now.parts[place.dataset.live];
    if (!part || part.digest === place.dataset.digest) continue;
    write(place, part.html);
    place.dataset.digest = part.digest;
    place.dispatchEvent(new CustomEvent("studio:written", { bubbles: true }));
  }
  const stale = Object.keys(now.rest).filter((area) => now.rest[area] !== rest[area]);
  for (const area of stale) {
    if ((performance.now() - (wokenAt[area] ?? -Infinity)) / 1000 < LEAST_SECONDS_BETWEEN_WAKES) continue;
    wokenAt[area] = performance.now();
    document.getElementById(`wake-${area}`)?.click();
  }
  const seconds = now.look_again_seconds || (stale.length ? LEAST_SECONDS_BETWEEN_WAKES : 0);
  if (seconds === 0) requestIdleCallback(bringNext);
  return seconds;
};
// While nothing goes on, tabs that were not looked at yet are brought one after the other: they open at once then.
const bringNext = () => {
  const area = areas().find((name) => !(name in rest) && !isShown(name));
  if (!area) return;
  rest[area] = ""; // is on its way
  document.getElementById(`wake-${area}`).click();
};

document.addEventListener("studio:live-part", () => requestAnimationFrame(ask));
document.addEventListener("studio:look", () => {
  areas().forEach((area) => delete wokenAt[area]); // somebody waits for what comes of it
  ask();
});
watch("value", () => {
  const [area, digest, name] = props.value.split(" ");
  rest[area] = digest;
  session = name;
  ask();
});
