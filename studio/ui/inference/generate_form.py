"""The form of the Generate mode: the prompts, the LoRAs, size, seed and count in one row, and the rest."""

import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component
from markupsafe import Markup

from studio.core.errors import SettingsError
from studio.core.language import _
from studio.core.paths import UserData
from studio.core.settings import GenerationSettings, ImagesSettings, parse_settings
from studio.core.text import template
from studio.engine.process.client import EngineClient
from studio.engine.process.view import EngineView
from studio.images.prompts import unlike_a1111
from studio.images.tokens import PART_TOKENS, TokenCounter, prompt_notes
from studio.loras.library import LoraLibrary
from studio.ui.forms import (
    LORA_ROWS,
    NO_LORA,
    SettingsForm,
    build_generation,
    build_lora_rows,
    build_reset,
    generation_values,
    read_generation,
)
from studio.ui.inference import lora_chips
from studio.ui.shell.parts import QUIET, Part, paragraph
from studio.ui.speed import SpeedPanel, render_costs, render_speed

_template = template("ui/templates/inference.html")

MODE = "generate"
RANDOM_SEED_LIMIT = 2**32  # as other programs draw them: ten digits, easy to write down
FIRST_PROMPT = "a photo of red canvas sneakers, on grass"
ASPECTS = ((1, 1), (3, 4), (4, 3), (2, 3), (3, 2))
SIZE_STEP, LEAST_SIZE = 8, 64
SWAP = "(width, height) => [height, width]"
NEW_SEED = "() => [String(Math.floor(Math.random() * 2 ** 32)), false]"
# A press sets both boxes; the size that they say is marked, also after a reload.
_ASPECT_CLICKS = """element.addEventListener("click", (event) => {
  const { width, height } = event.target.closest("button[data-width]")?.dataset ?? {};
  if (width !== undefined) trigger("click", { width: Number(width), height: Number(height) });
});
const mark = () => {
  const { width, height } = window.keptForms?.generate ?? {};
  for (const chip of element.querySelectorAll("button[data-width]")) {
    const same = (one, other) => Number(one || 0) === Number(other);
    chip.setAttribute("aria-pressed", same(width, chip.dataset.width) && same(height, chip.dataset.height));
  }
};
document.addEventListener("studio:form", mark);
watch("value", () => requestAnimationFrame(mark));"""


@dataclass(frozen=True)
class GenerateForm:
    """The form: `named` holds every control that is read, by its name."""

    named: dict[str, Any]
    tokens: gr.HTML
    chips: gr.HTML
    generation: SettingsForm
    size: "SizeRow"
    speeds: SpeedPanel

    @property
    def shown(self) -> dict[str, gr.components.Component]:
        """What a refresh keeps true, by the parts' names."""
        loras = {f"generate-lora-{i}": self.named[f"lora_{i}"] for i in range(LORA_ROWS)}
        sides = {f"generate-{side}": self.named[side] for side in ("width", "height")}
        speeds = {"generate-speed": self.named["speed"], "generate-speed-costs": self.speeds.costs}
        return {"generate-aspects": self.size.aspects, **speeds, **loras, **sides}

    def filled_by(self, settings: GenerationSettings) -> dict[Any, Any]:
        """What an event returns so that the form says these settings; LoRAs past its rows go into the prompt."""
        values = generation_values(settings) | {"new_seed": False}
        tags = "".join(f" <lora:{c.name}:{c.strength:g}>" for c in settings.loras[LORA_ROWS:])
        values["prompt"] = settings.prompt + tags
        return {control: values[name] for name, control in self.named.items() if name in values}

    def with_seed(self, seed: int) -> dict[Any, Any]:
        """What an event returns so that the next image has this seed."""
        return {self.named["seed"]: str(seed), self.named["new_seed"]: False}


def build_form() -> GenerateForm:
    """Lay the form out."""
    form = SettingsForm(GenerationSettings, MODE, {"prompt": FIRST_PROMPT})
    form.add("prompt")
    tokens = gr.HTML(elem_id="generate-tokens", padding=False)
    form.add("negative_prompt", elem_id="generate-negative")
    chips, rows = lora_chips.build(), build_lora_rows(MODE)
    size, speeds = SizeRow(), SpeedPanel()
    generation = build_generation(MODE, speed=speeds.build, head=size.build)
    named = {**form.fields, **rows, **generation.fields, "new_seed": size.new_seed, "num_images": size.num_images}
    build_reset(named, form=MODE)
    return GenerateForm(named, tokens, chips, generation, size, speeds)


class SizeRow:
    """Width and height with a swap and common shapes, the count, and the seed with its dice."""

    num_images: gr.Number
    new_seed: gr.Checkbox
    aspects: gr.HTML
    keep: gr.Button
    sides: list[Component]
    seed: list[Component]

    def build(self, form: SettingsForm) -> None:
        """Lay it out, and connect what only fills its boxes."""
        num_images = ImagesSettings.model_fields["num_images"]
        with gr.Column(elem_classes="size-row"):
            with gr.Row():
                form.add("width")
                swap = gr.Button("⇄", elem_id="generate-swap", elem_classes="square", min_width=0)
                form.add("height")
                self.num_images = gr.Number(
                    num_images.default,
                    label=_(str(num_images.title)),
                    elem_id="generate-num-images",
                    interactive=True,
                    min_width=0,
                )
            self.aspects = gr.HTML(elem_id="generate-aspects", padding=False, js_on_load=_ASPECT_CLICKS)
            with gr.Row():
                form.add("seed")
                dice = gr.Button("⚄", elem_id="generate-dice", elem_classes="square", min_width=0)
                self.keep = gr.Button(_("Keep"), elem_id="generate-keep", elem_classes="square", min_width=0)
                self.new_seed = gr.Checkbox(
                    True, label=_("Random"), elem_id="generate-new-seed", interactive=True, min_width=0
                )
        self.sides = [form.fields["width"], form.fields["height"]]
        self.seed = [form.fields["seed"], self.new_seed]
        in_the_page: dict[str, Any] = {"fn": None, "queue": False, "show_progress": "hidden"}
        swap.click(inputs=self.sides, outputs=self.sides, js=SWAP, **in_the_page)
        dice.click(outputs=self.seed, js=NEW_SEED, **in_the_page)

    def wire(self, engine: EngineClient) -> None:
        """Connect the shapes, and what keeps the seed of the images that were made last."""

        def choose(event: gr.EventData) -> list[int | None]:
            sides = (getattr(event, side, None) for side in ("width", "height"))
            return [side if isinstance(side, int) and side > 0 else None for side in sides]

        def keep(seed: str) -> list[object]:
            images = engine.view.images
            return [str(images.settings.generation.seed) if images else seed, False]

        self.aspects.click(choose, None, self.sides, queue=False, **QUIET)
        self.keep.click(keep, self.seed[0], self.seed, queue=False, **QUIET)


def aspect_sizes(width: int, height: int) -> list[tuple[str, int, int]]:
    """Common shapes of the area of a model's own size, in multiples of 8 pixels: (`3:4`, width, height)."""
    area = width * height

    def side(of: int, to: int) -> int:
        return max(LEAST_SIZE, round(math.sqrt(area * of / to) / SIZE_STEP) * SIZE_STEP)

    return [(f"{a}:{b}", side(a, b), side(b, a)) for a, b in ASPECTS]


def aspects_html(view: EngineView) -> Markup:
    """The shapes as buttons; none until the model's own size is known. That size itself is empty boxes."""
    if view.facts is None:
        return Markup()
    own = view.facts.width, view.facts.height
    return _template("aspects", sizes=aspect_sizes(*own), own=own)


def render_form(view: EngineView, library: LoraLibrary, user_data: UserData) -> dict[str, Part]:
    """What every shown part of the form should be now."""
    choices = gr.update(choices=[(_(NO_LORA), NO_LORA), *library.usable_names()])
    own = (view.facts.width, view.facts.height) if view.facts else ("", "")
    sides = zip(("width", "height"), own, strict=True)
    return {
        "generate-aspects": lambda: aspects_html(view),
        "generate-speed": render_speed(library),
        "generate-speed-costs": lambda: render_costs(view, library, user_data.speeds),
        **{f"generate-{side}": gr.update(placeholder=str(pixels)) for side, pixels in sides},
        **{f"generate-lora-{i}": choices for i in range(LORA_ROWS)},
    }


def to_settings(values: Mapping[str, Any]) -> ImagesSettings:
    """What the form says; a new seed is drawn where it asks for one.

    Raises:
        SettingsError: for each rule that is broken.
    """
    seed = secrets.randbelow(RANDOM_SEED_LIMIT) if values["new_seed"] else values["seed"]
    generation = read_generation({**values, "seed": seed})
    return parse_settings(ImagesSettings, {"generation": generation, "num_images": values["num_images"]})


def prompt_notes_html(engine: EngineClient, prompts: Mapping[str, str], *, long_prompt: bool) -> Markup:
    """What of these prompts acts otherwise than in A1111 or is cut off; their names stand before it."""
    words = []
    for name, prompt in prompts.items():
        try:
            notes = prompt_notes(prompt, long_prompt=long_prompt, tokens=_token_counter(engine))
        except SettingsError as error:
            notes = (str(error),)
        words += [paragraph("tokens bad", f"{name}: {note}") for note in notes]
    return Markup().join(words)


def _token_counter(engine: EngineClient) -> TokenCounter | None:
    file = engine.view.tokenizer_file
    return TokenCounter(file) if file is not None and file.is_file() else None


def token_words(engine: EngineClient, prompt: str, *, long_prompt: bool) -> Markup:
    """`12 of 75 tokens`, what is cut off, and A1111's commands; the tokens are empty until a model is loaded."""
    unlike = (paragraph("tokens bad", note) for note in unlike_a1111(prompt))
    return Markup().join([_num_tokens(engine, prompt, long_prompt=long_prompt), *unlike])


def _num_tokens(engine: EngineClient, prompt: str, *, long_prompt: bool) -> Markup:
    counter = _token_counter(engine)
    if counter is None:
        return Markup()
    try:
        count = counter.count(prompt)
    except SettingsError as error:
        return paragraph("tokens bad", error)
    if count.num_parts == 1:
        return paragraph("tokens", _("{num} of {limit} tokens", num=count.num_tokens, limit=PART_TOKENS))
    if long_prompt or not count.cut_off:  # BREAK begins a part, however short
        words = _(
            "{num} tokens in {num_parts} parts of {limit}",
            num=count.num_tokens,
            num_parts=count.num_parts,
            limit=PART_TOKENS,
        )
        return paragraph("tokens", words)
    words = _(
        "{num} of {limit} tokens. Cut off: “{lost}” (or switch on “Long prompts”)",
        num=count.num_tokens,
        limit=PART_TOKENS,
        lost=_shortened(count.cut_off),
    )
    return paragraph("tokens bad", words)


def _shortened(words: str, *, limit: int = 90) -> str:
    words = " ".join(words.split())
    return words if len(words) <= limit else words[: limit - 1] + "…"
