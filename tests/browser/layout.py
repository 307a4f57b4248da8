"""What is wrong with the layout of a page as it stands: overlaps, clipped text, sideways scrolling."""

from collections.abc import Mapping

from playwright.sync_api import Page

WIDTHS = (1024, 1280, 1440, 1920)

_MEASURE = """() => {
  const faults = [];
  const name = (element) => {
    const id = element.closest("[id]")?.id ?? "", words = element.textContent || element.value || "";
    return `${element.tagName.toLowerCase()}${id && `#${id}`} “${words.trim().slice(0, 40)}”`;
  };
  if (document.documentElement.scrollWidth > innerWidth)
    faults.push(`the page scrolls sideways: ${document.documentElement.scrollWidth} px`);
  const shown = (element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true });
  const within = (box, other) => ({
    left: Math.max(box.left, other.left), right: Math.min(box.right, other.right),
    top: Math.max(box.top, other.top), bottom: Math.min(box.bottom, other.bottom),
  });
  const scrolls = (style) => /auto|scroll/.test(style.overflowX + style.overflowY);

  // Text: what of it is seen is what no ancestor clips. One that scrolls hides nothing for good.
  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, element = node.parentElement;
    if (!/[\\p{L}\\p{N}]/u.test(node.data) || !shown(element)) continue;
    if (element.closest("script, style, noscript, option, svg")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    let box = range.getBoundingClientRect();
    if (box.width < 1 || box.height < 1) continue;
    let hidden = false, scrolled = false;
    let open = { left: 0, right: innerWidth, top: -Infinity, bottom: Infinity }; // what the ancestors leave open
    for (let up = element; up && up !== document.body; up = up.parentElement) {
      const style = getComputedStyle(up), frame = up.getBoundingClientRect();
      if (frame.width <= 1 || frame.height <= 1 || style.clip !== "auto") hidden = true; // for screen readers alone
      if (style.overflowX === "visible" && style.overflowY === "visible") continue;
      if (scrolls(style)) scrolled = true;
      const below = style.overflowY === "visible" ? 0 : box.bottom - frame.bottom;
      const cut = Math.max(frame.left - box.left, box.right - frame.right, below);
      if (cut > 2 && !scrolled && !hidden && style.textOverflow !== "ellipsis" && style.webkitLineClamp === "none")
        faults.push(`clipped by ${Math.round(cut)} px: ${name(element)}`);
      open = within(frame, open);
      box = within(frame, box);
    }
    if (hidden) continue;
    if (!scrolled && box.right > innerWidth + 1) faults.push(`beyond the right edge: ${name(element)}`);
    for (const line of range.getClientRects()) {
      const seen = within(line, open);
      if (seen.right - seen.left > 2 && seen.bottom - seen.top > 2) texts.push({ element, box: seen });
    }
  }

  // Boxes of text or controls that lie on one another, where both can be seen: a panel over the page covers it.
  const controls = [...document.querySelectorAll("button, input:not([type=hidden]), textarea, select")].filter(shown)
    .map((element) => ({ element, box: element.getBoundingClientRect() }))
    .filter(({ element, box }) => box.width > 4 && box.height > 4 && getComputedStyle(element).opacity > 0.1);
  const points = ({ left, right, top, bottom }) => [left + 2, (left + right) / 2, right - 2].flatMap((x) =>
    [top + 2, (top + bottom) / 2, bottom - 2].map((y) => [x, y]));
  const isHit = (element, hit) => hit && (element.contains(hit) || hit.closest("label")?.contains(element));
  const isSeen = ({ element, box }) => points(box).some(([x, y]) => isHit(element, document.elementFromPoint(x, y)));
  const layer = (element) => {
    let up = element;
    while (up && !/fixed|sticky/.test(getComputedStyle(up).position)) up = up.parentElement;
    return up;
  };
  const whole = (element) => element.closest(".past") ?? element.closest("label, button"); // acts lie on their image
  const related = (a, b) =>
    a.contains(b) || b.contains(a) || layer(a) !== layer(b) || (whole(a) && whole(a) === whole(b));
  const all = [...texts, ...controls].filter(({ box }) => box.bottom > 0 && box.top < innerHeight).filter(isSeen);
  for (let i = 0; i < all.length; i += 1) {
    for (let j = i + 1; j < all.length; j += 1) {
      const a = all[i], b = all[j];
      const across = Math.min(a.box.right, b.box.right) - Math.max(a.box.left, b.box.left);
      const down = Math.min(a.box.bottom, b.box.bottom) - Math.max(a.box.top, b.box.top);
      if (across > 3 && down > 3 && !related(a.element, b.element))
        faults.push(`${name(a.element)} lies on ${name(b.element)} by ${Math.round(across)} × ${Math.round(down)} px`);
    }
  }
  return [...new Set(faults)];
}"""


def layout_faults(page: Page) -> list[str]:
    """What overlaps, is clipped or reaches beyond the window, in words; of overlaps, what the window shows now."""
    faults: list[str] = page.evaluate(_MEASURE)
    return faults


_CUT_NUMBERS = """(longest) => Object.entries(longest).flatMap(([id, text]) => {
  const inputs = [...document.querySelectorAll(`#${id} input:is([type=number], [type=text]), #${id} textarea`)];
  const pen = document.createElement("canvas").getContext("2d");
  return inputs.filter((input) => input.checkVisibility({ visibilityProperty: true })).flatMap((input) => {
    const style = getComputedStyle(input);
    pen.font = style.font;
    const room = input.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    const needed = pen.measureText(text).width;
    const said = needed > room + 0.5 ? "cut" : "whole";
    return [`${said} #${id} “${text}”: ${Math.ceil(needed)} of ${Math.floor(room)} px`];
  });
})"""


def number_boxes(page: Page, longest: Mapping[str, str]) -> list[str]:
    """Of each box that is seen whether it shows the longest text that it may hold, by its id: `cut …`, `whole …`."""
    found: list[str] = page.evaluate(_CUT_NUMBERS, dict(longest))
    return found
