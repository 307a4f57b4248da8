"""Focus that stays where HTML is drawn anew: for those who go by keyboard, while a run adds to what they read."""

KEEPS_FOCUS = """let focused = null;
element.addEventListener("focusin", (event) => {
  focused = event.target.closest("[data-focus]")?.dataset.focus ?? null;
});
// What is drawn anew is gone by then, or has become another button; what a person has left is still there.
element.addEventListener("focusout", (event) => queueMicrotask(() => {
  const left = event.target.isConnected && !event.target.disabled;
  if (left && !element.contains(document.activeElement)) focused = null;
}));
watch("value", () => {
  const active = document.activeElement;
  if (focused === null || (active !== document.body && !element.contains(active))) return;
  const group = focused.split(" ")[0];
  const all = [...element.querySelectorAll("[data-focus]:not(:disabled)")];
  const again = all.find((button) => button.dataset.focus === focused)
    ?? all.find((button) => button.dataset.focus.split(" ")[0] === group) ?? all[0];
  if (again !== active) again?.focus({ preventScroll: true });
});
"""
"""For `js_on_load` of a gr.HTML whose buttons have a `data-focus` of their own: `row button`."""
