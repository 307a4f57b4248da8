"""What the Compare mode shows: the pair, the slider of strengths, and what the right side does in words."""

from pathlib import Path

from markupsafe import Markup

from studio.core.errors import EngineError
from studio.core.language import _
from studio.core.text import template
from studio.engine.process.view import EngineView
from studio.images.comparison import (
    BASE,
    ComparedPair,
    ComparedPicture,
    CompareReport,
    SavedComparison,
    StripPicture,
)
from studio.ui.shell.images import card, empty_frame, picture_frame, running_frame

_template = template("ui/templates/inference.html")
# The images were made once, and lie in the row below: the slider shows one of them after the other at once.
STRENGTH_SLIDER = """let chosen = "";
const show = () => {
  const slider = element.querySelector(".strength-slider input");
  if (!slider) return;
  if (chosen !== "" && Number(chosen) <= Number(slider.max)) slider.value = chosen;
  const cards = [...element.querySelectorAll(".strip .card")].filter((card) => card.querySelector(".zoom img"));
  const card = cards[slider.value];
  if (!card) return;
  const [from, large] = [card.querySelector(".zoom img"), element.querySelector(".strength-live .zoom img")];
  Object.assign(large, { src: from.src, alt: from.alt });
  const words = card.querySelector("figcaption").innerText.trim().replace(/\\s*\\n\\s*/g, " · ");
  element.querySelector(".strength-live .words").textContent = words;
  slider.setAttribute("aria-valuetext", words);
  cards.forEach((other) => other.classList.toggle("chosen", other === card));
};
element.addEventListener("input", (event) => {
  if (!event.target.matches(".strength-slider input")) return;
  chosen = event.target.value;
  show();
});
watch("value", () => requestAnimationFrame(show));
requestAnimationFrame(show);"""


def pair_name(index: int, pair: ComparedPair) -> str:
    """`1 · red sneakers · seed 42`."""
    settings = pair.left.settings
    prompt = settings.prompt if len(settings.prompt) <= 40 else settings.prompt[:39] + "…"
    return _("{number} · {prompt} · seed {seed}", number=index + 1, prompt=prompt, seed=settings.seed)


def pair_choices(saved: SavedComparison | None) -> list[tuple[str, int]]:
    """Name and number of every finished pair."""
    if saved is None:
        return []
    return [(pair_name(i, pair), i) for i, pair in enumerate(saved.report.pairs) if pair.right is not None]


def pair_files(saved: SavedComparison | None, index: int) -> tuple[str, str] | None:
    """The files of both sides of a pair, for the slider; None where one is missing."""
    if saved is None or index >= len(saved.report.pairs):
        return None
    pair = saved.report.pairs[index]
    files = [saved.folder / side.file for side in (pair.left, pair.right) if side and side.file]
    return (str(files[0]), str(files[1])) if len(files) == 2 and all(f.is_file() for f in files) else None


def comparison_of(view: EngineView, of: str) -> SavedComparison:
    """The comparison that a page shows, which a press on it is about.

    Raises:
        EngineError: where another one was begun meanwhile.
    """
    if not of or view.comparison is None or view.comparison.folder.name != of:
        raise EngineError(
            _(
                "Nothing was done: another comparison was started meanwhile, perhaps in another tab, "
                "and this page still showed the one before. Look at the new one, then press again."
            )
        )
    return view.comparison


def finished_pairs(saved: SavedComparison | None) -> int:
    """How many pairs have both sides."""
    return sum(pair.right is not None for pair in saved.report.pairs) if saved else 0


def captions(report: CompareReport | None) -> Markup:
    """Under both ends of the slider."""
    left, right = (report.shown_left, report.shown_right) if report else (_(BASE), _("LoRA"))
    return _template("ends", left=left, right=right)


def side_by_side(saved: SavedComparison | None, index: int, view: EngineView) -> Markup:
    """The pair as two small images, with what each is, its time, and how far they are apart."""
    if saved is None or index >= len(saved.report.pairs):
        return _template("pair", figures=_pair_to_come(saved, view))
    pair, report = saved.report.pairs[index], saved.report
    left = card(_frame(saved.folder, pair.left, _("left image")), _side_words(report.shown_left, pair.left))
    if pair.right is None:
        right = card(running_frame(view) if view.phase == "comparing" else _not_made(), report.shown_right)
    else:
        right = card(_frame(saved.folder, pair.right, _("right image")), _side_words(report.shown_right, pair.right))
    sentence = ""
    if pair.difference:
        sentence = _("{side} {words}.", side=report.shown_right, words=pair.difference.words)
    return _template("pair", figures=[left, right], sentence=sentence)


def _pair_to_come(saved: SavedComparison | None, view: EngineView) -> list[Markup]:
    """The pair whose left side is being made; nothing where nothing is."""
    if view.phase != "comparing":
        return []
    left, right = (saved.report.shown_left, saved.report.shown_right) if saved else (_("left"), _("right"))
    return [card(running_frame(view), left), card(empty_frame("·", _("not made yet")), right)]


def _not_made() -> Markup:
    return empty_frame("·", _("not made"))


def strip(saved: SavedComparison | None, index: int, view: EngineView) -> Markup:
    """A pair's right side at each strength: in a row, and large beside the left side, where a slider goes through them.

    Of a pair that has none, as in a comparison that was cancelled, those of the last one that has.
    """
    if saved is None or not saved.report.settings.strip:
        return Markup()
    report, running = saved.report, view.phase == "comparing"
    if not running:
        index = min(index, max(0, len(report.strips) - 1))
    pictures = report.strips[index] if index < len(report.strips) else ()
    figures = [_strip_figure(saved.folder, picture) for picture in pictures]
    # Of all pairs the strips are made one after the other, once the pairs are there.
    is_next = running and strip_in_work(report) == index
    for number, strength in enumerate(report.settings.strip[len(figures) :]):
        frame = running_frame(view) if is_next and number == 0 else _not_made()
        figures.append(card(frame, _template("strength", strength=strength, difference=None)))
    made = [picture.strength for picture in pictures if picture.picture.file]
    live = Markup()
    if len(made) > 1:
        left = card(_frame(saved.folder, report.pairs[index].left, _("left image")), report.shown_left)
        nearest = min(range(len(made)), key=lambda number: abs(made[number] - 1))
        live = _template("strength_slider", left=left, name=report.shown_right, strengths=made, first=nearest)
    several = len(report.settings.pairs()) > 1 and index < len(report.pairs)
    pair = pair_name(index, report.pairs[index]) if several else ""
    return _template("strip", pair=pair, live=live, figures=figures)


def strip_in_work(report: CompareReport) -> int | None:
    """The pair whose images by strength are made now; None before, and where all are there."""
    length, pairs = len(report.settings.strip), len(report.settings.pairs())
    is_begun = bool(length) and report.num_finished >= 2 * pairs
    return len(report.strip) // length if is_begun and len(report.strip) < length * pairs else None


def _strip_figure(folder: Path, picture: StripPicture) -> Markup:
    words = _template("strength", strength=picture.strength, difference=picture.difference)
    return card(_frame(folder, picture.picture, _("strength {strength:g}", strength=picture.strength)), words)


def _frame(folder: Path, picture: ComparedPicture, name: str) -> Markup:
    if not picture.file:
        return empty_frame("✗", _("invalid, not shown"))
    return picture_frame(folder / picture.file, name=name, alt=picture.settings.prompt)


def _side_words(name: str, picture: ComparedPicture) -> Markup:
    return _template("side", name=name, seconds=picture.seconds if picture.file else None, error=picture.error)


def sentence(view: EngineView) -> Markup:
    """What the right side does, and where; empty before the first finished pair."""
    if view.comparison is None or not finished_pairs(view.comparison):
        return Markup()
    report = view.comparison.report
    return _template("finding", sentence=report.sentence, parts=report.parts)
