"""How fast images are made: scheduler, steps and guidance, which belong together, as one choice.

A Speed LoRA says in its metadata with which of them it is used.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from pydantic import Field, ValidationError

from studio.core.errors import LoraError, WeightsFileError
from studio.core.files import read_file, write_atomically
from studio.core.language import N_, _
from studio.core.records import Record
from studio.core.settings import GenerationSettings, Guidance, LoraChoice, SchedulerName, Settings, StepCount, Strength
from studio.loras.library import LoraLibrary
from studio.loras.weights_file import file_state, read_header

SPEED_METADATA = "lora_studio.speed"
"""The entry of a LoRA's metadata that holds its `SpeedUse` as JSON."""
FULL, FAST = "full", "fast"
OF_LORA = "lora:"
"""What the key of a Speed LoRA begins with: a LoRA may be called fast."""
WHOLE: Mapping[str, object] = {"guidance_start": 0.0, "guidance_end": 1.0}
SPEEDS: Mapping[str, Mapping[str, object]] = {
    FULL: {"scheduler": "model's own", "num_inference_steps": 25, **WHOLE},
    FAST: {"scheduler": "DPM++ 2M", "num_inference_steps": 8, **WHOLE},
}
"""What each speed without a LoRA sets. How strong guidance is, is left as it was: a model's own matter."""
SPEED_TITLES: Mapping[str, str] = {FULL: N_("Full (25 steps, guided)"), FAST: N_("Fast (DPM++ 2M, 8 steps)")}
NEAR_ENOUGH = 10.0
"""How far images may be from those in full, root mean square of 255: the same image by eye."""
FEW_STEP_SCHEDULERS: tuple[SchedulerName, ...] = ("Euler trailing", "LCM")


class SpeedUse(Settings):
    """With what a Speed LoRA is used; `teacher_lora` acts beside it, where it was made for one.

    Attributes:
        timesteps: at which its steps begin, from noise on.
        teacher_guidance_scale: the guidance that is part of it: without it, images have that again.
    """

    num_inference_steps: StepCount
    guidance_scale: Guidance = 1.0
    scheduler: SchedulerName
    timesteps: tuple[int, ...] = ()
    teacher_lora: str = ""
    teacher_lora_strength: Strength = 1.0
    teacher_guidance_scale: Guidance = 7.5

    @property
    def changes(self) -> dict[str, object]:
        """The generation settings that it sets."""
        names = ("scheduler", "num_inference_steps", "guidance_scale")
        return {**{name: getattr(self, name) for name in names}, **WHOLE}


LCM_USE = SpeedUse(num_inference_steps=4, scheduler="LCM")
"""Of LCM-LoRAs (arXiv 2311.05556), which say nothing in their metadata."""


def use_of(name: str, metadata: Mapping[str, str]) -> SpeedUse | None:
    """With what a LoRA is used, where it is one for few steps: by its metadata, or by the name of published ones."""
    if SPEED_METADATA in metadata:
        try:
            return SpeedUse.model_validate_json(metadata[SPEED_METADATA])
        except ValidationError:  # of another version: it can still be used as any LoRA
            return None
    words = name.casefold().replace("_", "-").replace(" ", "-").split("-")
    return LCM_USE if "lcm" in words else None


def speed_loras(library: LoraLibrary) -> dict[str, SpeedUse]:
    """The library's LoRAs for few steps, by their names."""
    found = {}
    for name in library.names():
        try:
            path = library.path_of(name)
            use = _read_use(name, path, file_state(path))
        except (LoraError, WeightsFileError, OSError):  # gone meanwhile or damaged: its card says so
            continue
        if use is not None:
            found[name] = use
    return found


@lru_cache(maxsize=1024)  # pages ask twice a second
def _read_use(name: str, path: Path, _state: tuple[int, ...]) -> SpeedUse | None:
    return use_of(name, read_header(path).metadata)


def all_speeds(library: LoraLibrary) -> dict[str, str]:
    """What the page calls every speed, by its key: full, fast, and each Speed LoRA."""
    steps = N_("{name} ({steps} steps)")
    named = {key: _(title) for key, title in SPEED_TITLES.items()}
    loras = speed_loras(library).items()
    return named | {f"{OF_LORA}{name}": _(steps, name=name, steps=use.num_inference_steps) for name, use in loras}


def speed_choices(library: LoraLibrary) -> list[tuple[str, str]]:
    """(what the page calls it, its key) of every speed."""
    return [(title, key) for key, title in all_speeds(library).items()]


def lora_of_speed(speed: str) -> str:
    """The name of the Speed LoRA that a speed's key names; empty of full and fast."""
    return "" if speed in SPEEDS else speed.removeprefix(OF_LORA)


def with_speed(
    speed: str, before: GenerationSettings, library: LoraLibrary
) -> tuple[dict[str, object], tuple[LoraChoice, ...]]:
    """(the generation settings that a speed sets together, the LoRAs that act then).

    A Speed LoRA replaces another one, and brings the LoRA that it was made for where none acts yet. Guidance is left
    as it is by speeds without one, but where a Speed LoRA had turned it off.

    Args:
        speed: full, fast, or a Speed LoRA's name.
        before: the settings as they are.

    Raises:
        LoraError: where there is no such speed.
    """
    known, name, loras = speed_loras(library), lora_of_speed(speed), before.loras
    left = [known[choice.name] for choice in loras if choice.name in known]
    kept = tuple(choice for choice in loras if choice.name not in known)
    if speed in SPEEDS:
        was_off = before.guidance_scale <= 1 and (left or before.scheduler in FEW_STEP_SCHEDULERS)
        guidance = left[-1].teacher_guidance_scale if left else GenerationSettings(prompt="").guidance_scale
        return {**SPEEDS[speed], **({"guidance_scale": guidance} if was_off else {})}, kept
    if name not in known:
        names = ", ".join((*SPEEDS, *(f"{OF_LORA}{known_name}" for known_name in known)))
        raise LoraError(_("There is no speed {speed!r}. Choose one of {names}.", speed=name or speed, names=names))
    use = known[name]
    brought = {(one.teacher_lora, one.teacher_lora_strength) for one in left}
    if (use.teacher_lora, use.teacher_lora_strength) not in brought:  # they leave with the one that brought them
        kept = tuple(choice for choice in kept if (choice.name, choice.strength) not in brought)
    if not kept and use.teacher_lora in library.names():
        kept = (LoraChoice(name=use.teacher_lora, strength=use.teacher_lora_strength),)
    return use.changes, (*kept, LoraChoice(name=name))


def at_speed(speed: str, generation: GenerationSettings, library: LoraLibrary) -> GenerationSettings:
    """The same image at a speed.

    Raises:
        LoraError: where there is no such speed.
    """
    changes, loras = with_speed(speed, generation, library)
    return generation.model_copy(update={**changes, "loras": loras})


def without_speed(generation: GenerationSettings, library: LoraLibrary) -> GenerationSettings:
    """The image in full that a speed's is to be like: without its Speed LoRA, with the guidance of its teacher."""
    return at_speed(FULL, generation, library)


def speed_of(settings: GenerationSettings) -> str:
    """The key of the speed that these settings say, as far as can be told."""
    if settings.scheduler in FEW_STEP_SCHEDULERS and settings.loras:
        return f"{OF_LORA}{settings.loras[-1].name}"
    is_fast = all(getattr(settings, name) == value for name, value in SPEEDS[FAST].items())
    return FAST if is_fast else FULL


class SpeedCost(Record):
    """What a speed costs beside the same images in full, on average.

    Attributes:
        distance: root mean square of 255.
        whiteness: of the border, by how much it is more; sharpness: the same, as a share.
        named_right: by how many more subjects have the colour that was asked for.
    """

    seconds: float
    full_seconds: float
    distance: float
    whiteness: float
    sharpness: float
    named_right: int

    @property
    def words(self) -> str:
        """`0.35 × the time, 4.7 of 255 away`."""
        time = self.seconds / self.full_seconds if self.full_seconds else 1.0
        return _("{time:.2f} × the time, {distance:.1f} of 255 away", time=time, distance=self.distance)


class MeasuredSpeeds(Record):
    """What the speeds cost on a model, by their keys; full costs nothing, and is not among them."""

    model: str
    measured_at: datetime
    num_images: int
    costs: dict[str, SpeedCost]

    def fastest_within(self, distance: float, there: Collection[str]) -> str:
        """The key of the fastest speed of those that are there, whose images are at most so far from those in full."""
        near = {key: cost for key, cost in self.costs.items() if key in there and cost.distance <= distance}
        faster = [key for key, cost in near.items() if cost.seconds < cost.full_seconds]
        return min(faster, key=lambda key: near[key].seconds / near[key].full_seconds, default=FULL)


class _SpeedsFile(Record):
    models: dict[str, MeasuredSpeeds] = Field(default_factory=dict)


def measured_speeds(file: Path, model: str) -> MeasuredSpeeds | None:
    """What was measured of a model; None where nothing was, or the file is damaged."""
    return _read_speeds(file).models.get(model)


def keep_speeds(file: Path, measured: MeasuredSpeeds) -> None:
    """Remember what was measured of a model, in place of what was known of it.

    Raises:
        OSError: where it cannot be written.
    """
    known = _read_speeds(file)
    changed = known.model_copy(update={"models": {**known.models, measured.model: measured}})
    write_atomically(file, changed.model_dump_json(indent=2).encode())


def _read_speeds(file: Path) -> _SpeedsFile:
    try:
        return _SpeedsFile.model_validate_json(read_file(file))
    except (OSError, ValidationError):  # none yet, or of another version: measured anew
        return _SpeedsFile()
