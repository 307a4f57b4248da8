"""Validation images: made, kept, scored.

Validation images: the same prompts and seeds at every step, base beside LoRA, through PipelineManager.

The LoRA acts as it will act for others: from a file that was just written, attached to the bare model.

Validation images between steps: made, told, scored. What a stop left undone is done when the run goes on.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from studio.core.errors import (
    CancelledError,
    DatasetError,
    GenerationCancelledError,
    InvalidImageError,
    LoraError,
    PictureFileError,
    StudioError,
    error_message,
)
from studio.core.language import _, for_later
from studio.core.settings import SEED_MAX, GenerationSettings, LoraChoice
from studio.engine.device import release_memory
from studio.engine.lora_export import write_kohya
from studio.engine.lora_file import LoraWeights
from studio.engine.memory import OffloadedModule, all_present
from studio.engine.pipeline import GeneratedImage, PipelineManager
from studio.engine.progress import Watcher
from studio.images.files import is_whole_png, read_picture_text, save_picture
from studio.images.prompts import escape_prompt, plain_prompt
from studio.images.tokens import TokenCounter, prompt_notes, tokenizer_of
from studio.training.events import ReferenceEvent, SampleEvent, ScoreEvent
from studio.training.folder import RunFolder
from studio.training.settings import TrainingSettings
from studio.training.torch.adapters import Adapters, reader_notes
from studio.training.torch.data import TrainingSet
from studio.training.torch.optimizers import schedule_notes
from studio.training.torch.reporter import Reporter, save_step
from studio.training.torch.scores import RunScores

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
CHECK_STEPS = 4
CHECK_PROMPT = "a photo"  # of nobody's writing: whatever captions hold, files can be compared
STEP_LORA = "lora.safetensors"
Pictures = tuple[str | None, ...]
"""Files below the run's folder; None where an image was not valid."""


def choose_prompts(settings: TrainingSettings, data: TrainingSet) -> tuple[str, ...]:
    """The user's, else captions of held-out images, else of trained ones: as many as there are images."""
    if settings.validation_prompts:
        return settings.validation_prompts
    captions = dict.fromkeys(item.caption for item in (*data.held_out, *data.items) if item.caption)
    return tuple(captions)[: settings.num_validation_images]


@for_later()
def settings_notes(settings: TrainingSettings) -> tuple[str, ...]:
    """What one may not expect of the settings: of the schedule, of the file's readers, of the user's own prompts.

    Of prompts, what is cut off, as captions are in training, or acts otherwise than in A1111.
    """
    tokens = TokenCounter(tokenizer_of(settings.model))
    of_prompts = (
        _("validation_prompts {prompt!r}: {note}", prompt=prompt[:40], note=note)
        for prompt in settings.validation_prompts
        for note in prompt_notes(prompt, long_prompt=None, tokens=tokens)
    )
    return (*schedule_notes(settings), *reader_notes(settings), *of_prompts)


def validation_generations(
    settings: TrainingSettings, prompts: Sequence[str], *, resolution: int
) -> tuple[GenerationSettings, ...]:
    """One for each image: prompts in turn, each image with a seed of its own. For a Speed LoRA, its teacher's images.

    Tags and weights act in prompts of the settings alone. Captions are the text that training reads.
    """
    if not prompts:
        return ()
    speed = settings.makes_speed_lora
    guidance = settings.teacher_guidance_scale if speed else settings.validation_guidance_scale
    texts = prompts if settings.validation_prompts else [escape_prompt(caption) for caption in prompts]
    return tuple(
        GenerationSettings(
            prompt=texts[i % len(texts)],
            num_inference_steps=settings.validation_inference_steps,
            guidance_scale=guidance,
            loras=settings.teacher_loras,
            width=resolution,
            height=resolution,
            seed=(settings.validation_seed + i) % (SEED_MAX + 1),
        )
        for i in range(settings.num_validation_images)
    )


def check_generation(settings: TrainingSettings, *, resolution: int) -> GenerationSettings:
    """The small image by which a finished file is compared with the layers in memory.

    Of half the side: decoding a whole one would take more memory than the training did.
    """
    half = max(64, resolution // 16 * 8)
    return GenerationSettings(
        prompt=CHECK_PROMPT,
        num_inference_steps=CHECK_STEPS,
        guidance_scale=1,
        loras=settings.teacher_loras,
        width=half,
        height=half,
        seed=settings.validation_seed,
    )


def with_lora(generation: GenerationSettings, file: Path) -> GenerationSettings:
    """The same image with the LoRA of a file besides."""
    return generation.model_copy(update={"loras": (*generation.loras, LoraChoice(name=str(file.resolve())))})


@dataclass
class Sampler:
    """Makes validation images of one run.

    Attributes:
        tell_problem: told of every image that failed a check or could not be made; the run goes on.
        on_picture: given each image as (name, (height, width, 3) uint8), for TensorBoard.
    """

    manager: PipelineManager
    adapters: Adapters
    offloaded: tuple[OffloadedModule, ...]
    run: RunFolder
    settings: TrainingSettings
    generations: tuple[GenerationSettings, ...]
    report_problem: Callable[[str], None]
    on_picture: Callable[[int, str, np.ndarray], None]
    cancelled: Callable[[], bool] = lambda: False
    _base: Pictures | None = field(default=None)

    def sample_base(self) -> SampleEvent:
        """Pictures of the base alone: those of step 0, whose LoRA changes nothing.

        Raises:
            GenerationCancelledError: where `cancelled` said so.
            OSError: where they cannot be written.
        """
        started = time.perf_counter()
        with self._bare_model():
            base = self._base_pictures()
        return self._event(0, base, base, lora="", started=started)

    def sample(self, step: int, weights: LoraWeights, metadata: Mapping[str, str]) -> SampleEvent:
        """Pictures of the LoRA as it is now, and of the base where they are not made yet.

        Raises:
            GenerationCancelledError, OSError: as `sample_base`.
        """
        started = time.perf_counter()
        folder = self.run.samples / f"step-{step:06}"
        file = folder / STEP_LORA
        try:
            write_kohya(file, weights, metadata, dtype=DTYPES[self.settings.save_dtype])
        except LoraError:  # a number that only float32 holds; the finished file is stored in it then, and says so
            write_kohya(file, weights, metadata, dtype=torch.float32)
        with self._bare_model():
            base, pictures = self._base_pictures(), self._pictures(step, folder, lora=file)
        return self._event(step, base, pictures, lora=self._relative(file), started=started)

    @contextmanager
    def _bare_model(self) -> Iterator[None]:
        """The model without the layers that learn; what is drawn by chance here changes nothing of the training."""
        with torch.random.fork_rng(devices=[]), all_present(self.offloaded), self.adapters.taken_out():
            try:
                yield
            finally:
                self.manager.loras.use(self.settings.teacher_loras)  # before the layers that learn come back

    def _base_pictures(self) -> Pictures:
        if self._base is None:
            self._base = self._pictures(0, self.run.samples / "base", lora=None)
        return self._base

    def _event(self, step: int, base: Pictures, pictures: Pictures, *, lora: str, started: float) -> SampleEvent:
        return SampleEvent(
            step=step,
            prompts=tuple(self._shown_prompt(generation) for generation in self.generations),
            base=base,
            pictures=pictures,
            lora=lora,
            seconds=time.perf_counter() - started,
        )

    def _shown_prompt(self, generation: GenerationSettings) -> str:
        """As it was written: by the user, or as a caption."""
        return generation.prompt if self.settings.validation_prompts else plain_prompt(generation.prompt)

    def _pictures(self, step: int, folder: Path, *, lora: Path | None) -> Pictures:
        files: list[str | None] = []
        for index, generation in enumerate(self.generations):
            wanted = generation if lora is None else with_lora(self.settings.drawn_fast(generation), lora)
            file = folder / f"{index}-seed{generation.seed}.png"
            if lora is None and _is_made(file, wanted):  # before the run was resumed
                files.append(self._relative(file))
                continue
            prompt = self._shown_prompt(generation)
            made = self._make(wanted, _("The image {prompt!r} of step {step:,}", prompt=prompt, step=step))
            if made is None:
                files.append(None)
                continue
            save_picture(file, made.picture, made.record)
            self.on_picture(step, f"{'base' if lora is None else 'lora'}/{index}", made.picture)
            files.append(self._relative(file))
        return tuple(files)

    def _make(self, wanted: GenerationSettings, name: str) -> GeneratedImage | None:
        """An image; None, and said, where there is none: no image is worth a training."""
        try:
            return self.manager.generate(wanted, watcher=Watcher(cancelled=self.cancelled))
        except InvalidImageError as error:
            words = _("{name} is not valid. {error}", name=name, error=error)
        except CancelledError:
            raise
        except (StudioError, ValueError, MemoryError, RuntimeError) as error:
            words = _("{name} cannot be made. {error}", name=name, error=error_message(error))
        release_memory(self.manager.device)
        self.report_problem(words)
        return None

    def _relative(self, file: Path) -> str:
        return file.relative_to(self.run.root).as_posix()


def _is_made(file: Path, wanted: GenerationSettings) -> bool:
    """Whether this very image is on the disk already, and whole."""
    if not is_whole_png(file):
        return False
    try:
        return read_picture_text(file).settings == wanted
    except PictureFileError:  # another program's
        return False


@dataclass
class ValidationPictures:
    """The images of one run; only the first process of a launch has them.

    Attributes:
        scores: None where they are not scored any longer.
        made: the steps whose images were told, those of before a resume too.
    """

    sampler: Sampler
    scores: RunScores | None
    reporter: Reporter
    stop_signal: Callable[[], bool]
    made: set[int]

    def make_base(self, *, at: int) -> None:
        """The base's images, which are those of step 0, at whatever step they are made.

        Raises:
            OSError: where they cannot be written, but for a full disk, which is waited for.
        """
        self._make(0, self.sampler.sample_base, _("Making the images of the base model."), at=at)

    def make(self, step: int, weights: LoraWeights, metadata: Mapping[str, str]) -> None:
        """The images of a step.

        Raises:
            OSError: as `make_base`.
        """
        words = _("Making the images of step {step:,}.", step=step)
        self._make(step, lambda: self.sampler.sample(step, weights, metadata), words, at=step)

    def score_the_rest(self, *, at: int) -> None:
        """Score what a stop or a kill left without scores."""
        unscored = self.scores.unscored() if self.scores is not None else []
        if not unscored:
            return
        self.reporter.state("sampling", _("Scoring images that were made before."), step=at)
        with suppress(GenerationCancelledError):  # a stop again
            for event in unscored:
                self._score(event)
        self.reporter.state("running", step=at)

    def is_whole(self, step: int) -> bool:
        """Whether a step's images are made, and scored where any are."""
        return step in self.made and (self.scores is None or self.scores.has_scored(step))

    def _make(self, step: int, sample: Callable[[], SampleEvent], words: str, *, at: int) -> None:
        self.reporter.state("sampling", words, step=at)
        try:
            event = save_step(sample, step=at, reporter=self.reporter, stop_signal=self.stop_signal)
            self.made.add(step)
            self.reporter.report(event)
            # The LoRA's images will take as long as the base's.
            self.reporter.between_steps.took("pictures", event.seconds + self._score(event))
        except GenerationCancelledError:
            pass  # a stop: images or scores are made when the run is resumed
        self.reporter.state("running", step=at)

    def _score(self, event: SampleEvent) -> float:
        """Measure the images, and say which step is proposed so far; the seconds that this will take each time.

        Raises:
            GenerationCancelledError: where a stop came meanwhile.
        """
        if self.scores is None:
            return 0.0
        self.scores.take_in(event)
        try:
            if not self.scores.knows_reference:
                self._report(self.scores, self.scores.reference())
            self.scores.look_at_training_pictures()
            started = time.perf_counter()
            self._report(self.scores, self.scores.score(event))
        except DatasetError as error:  # the files are gone, as they may be with --use-snapshot
            self.scores = None
            self.reporter.problem(_("Images are not scored any longer: {error}", error=error))
            return 0.0
        proposal = self.scores.proposal()
        if proposal is not None:
            self.reporter.report(proposal)
        return time.perf_counter() - started

    def _report(self, scores: RunScores, event: ReferenceEvent | ScoreEvent) -> None:
        scores.take_in(event)
        self.reporter.report(event)
