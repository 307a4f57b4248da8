"""The forecast before a training: what it counts, what it offers, and that it leaves nothing behind but caches."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from studio.cli.train import preflight_text
from studio.core.errors import DatasetError, ModelError, SettingsError, TrainingError
from studio.core.paths import UserData
from studio.core.settings import parse_settings
from studio.core.text import duration
from studio.training.settings import TrainingSettings
from studio.training.torch import preflight
from studio.training.torch.loss import NUM_TRIPLES, NoiseLoss
from studio.training.torch.preflight import PassFacts, Preflight, run_preflight
from studio.training.torch.preparation import Prepared, prepare
from studio.training.torch.processes import Processes
from tests.training.torch.parts import save_pictures

GIB = 2**30
KEPT = PassFacts(seconds=2.0, peak_bytes=6 * GIB)
TWICE = PassFacts(seconds=2.5, peak_bytes=4 * GIB)
MEASURED = preflight._Measured(with_checkpointing=TWICE, without=KEPT, encoding_seconds=0.5, picture_seconds=10.0)


@dataclass(frozen=True)
class Place:
    """A dataset of eight images, the tiny model, and a user_data that all tests of this file share."""

    user_data: UserData
    dataset: Path
    model: Path

    def settings(self, **changes: object) -> TrainingSettings:
        values: dict[str, object] = {
            "dataset": str(self.dataset),
            "model": str(self.model),
            "resolution": 64,
            "rank": 2,
            "cpu": True,
            "max_train_steps": 1000,
            "train_batch_size": 4,
            "gradient_accumulation_steps": 3,
            "validation_steps": 250,
            "num_validation_images": 2,
            "validation_inference_steps": 3,
            "held_out_percent": 0,
            "held_out_steps": 500,
            **changes,
        }
        return parse_settings(TrainingSettings, values)

    def forecast(self, **changes: object) -> Preflight:
        return run_preflight(self.settings(**changes), self.user_data)


@pytest.fixture(scope="module")
def place(tiny_model: Path, small_dataset: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("preflight")
    return Place(UserData(folder / "user_data"), small_dataset(folder), tiny_model)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes that took a known time and memory."""
    monkeypatch.setattr(preflight, "_measure", lambda prepared, report: MEASURED)


def test_a_real_one_takes_seconds_and_leaves_caches_alone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Prepared] = []

    def watched(*args: object, **options: object) -> Prepared:
        seen.append(prepare(*args, **options))  # type: ignore[arg-type]
        return seen[0]

    monkeypatch.setattr(preflight, "prepare", watched)
    started = time.monotonic()
    steps: list[str] = []
    found = run_preflight(place.settings(gradient_checkpointing="auto"), place.user_data, report=steps.append)
    assert [*dict.fromkeys(step.partition(":")[0] for step in steps)] == [
        "Checking the dataset.",
        "Loading the model.",
        "Encoding images",
        "Encoding captions",
        "Measuring batches with gradient checkpointing.",
        "Measuring batches without gradient checkpointing.",
        "Measuring the encoding of an image and a validation image.",
    ]
    assert time.monotonic() - started < 30
    assert 0 < found.step_seconds < 5
    assert 100e6 < found.peak_bytes < found.limit_bytes
    assert found.total_seconds > 1000 * found.step_seconds
    assert not found.gradient_checkpointing
    assert found.num_pictures == 8
    adapters = seen[0].adapters
    assert all(parameter.grad is None for parameter in adapters.parameters())
    for name, parameter in adapters.named_parameters():
        assert "lora_B" not in name or not parameter.any(), name  # nothing was learned
    assert [path.name for path in place.user_data.root.iterdir()] == ["cache"]


def test_a_real_one_shows_what_more_checkpointing_costs_and_where_the_training_is(place: Place) -> None:
    found = place.forecast(gradient_checkpointing="part", gradient_checkpointing_percent=60)
    assert [point.percent for point in found.curve] == [*range(0, 101, 10)]
    memory = [point.peak_bytes for point in found.curve]
    assert memory[0] > memory[6]
    assert 60 <= found.checkpointing_percent < 80
    assert not found.gradient_checkpointing
    assert "frees 6" in found.reason


def test_a_step_is_all_its_batches_and_a_training_all_its_steps(place: Place, measured: None) -> None:
    found = place.forecast()
    assert found.step_seconds == 3 * KEPT.seconds
    assert (found.num_steps, found.batches_per_step) == (1000, 3)
    assert found.epochs == 1000 * 3 * 4 / 8
    assert found.total_seconds == pytest.approx(
        1000 * 6.0 + found.encoding_seconds + found.pictures_seconds + found.held_out_seconds
    )


def test_twice_the_accumulation_is_twice_the_time_of_the_steps_and_no_other_time(place: Place, measured: None) -> None:
    once, twice = place.forecast(), place.forecast(gradient_accumulation_steps=6)
    assert twice.num_steps == once.num_steps == 1000
    assert twice.step_seconds == 2 * once.step_seconds
    assert twice.total_seconds - once.total_seconds == pytest.approx(1000 * once.step_seconds)
    assert twice.pictures_seconds == once.pictures_seconds
    assert twice.held_out_seconds == once.held_out_seconds


def test_besides_the_steps_pictures_held_out_losses_and_encoding_are_counted(place: Place, measured: None) -> None:
    found = place.forecast()
    assert found.encoding_seconds == 8 * 0.5
    assert found.pictures_seconds == (4 + 2) * 2 * 10.0  # four times, step 0, and the base
    assert found.held_out_seconds == pytest.approx(3 * NUM_TRIPLES / 4 * 2.0 / 3)
    both_sides = place.forecast(held_out_percent=25)
    assert both_sides.held_out_seconds == pytest.approx(2 * found.held_out_seconds)
    assert both_sides.num_pictures == 6
    assert place.forecast(horizontal_flip=True).encoding_seconds == 16 * 0.5
    assert place.forecast(num_validation_images=0).pictures_seconds == 0


def test_variants_are_counted_in_time_and_disk_and_shown(place: Place, measured: None) -> None:
    plain = place.forecast()
    many = place.forecast(brightness_jitter_percent=20, horizontal_flip=True, num_variants=3)
    assert (plain.num_latents, many.num_latents) == (8, 48)
    assert many.encoding_seconds == 6 * plain.encoding_seconds
    assert many.latents_bytes == 48 * 2 * 4 * 4 * 8 * 8, "means and deviations of 4 channels, in float32"
    assert many.disk_bytes - plain.disk_bytes == many.latents_bytes - plain.latents_bytes
    assert plain.variants is None
    assert many.variants is not None
    assert many.variants.num_variants == len(set(many.variants.jpegs)) == 6
    assert "Up to 6 variants of each image: 48 latents, " in preflight_text(many)
    assert "variants" not in preflight_text(plain)
    held_out = place.forecast(brightness_jitter_percent=20, num_variants=3, held_out_percent=25)
    assert held_out.num_latents == 6 * 3 + 2, "held-out images are seen in one way"


def test_of_many_variants_a_few_are_shown(place: Place, measured: None) -> None:
    shown = place.forecast(brightness_jitter_percent=20, num_variants=40).variants
    assert shown is not None
    assert shown.num_variants > len(shown.jpegs) == 12


def test_regularisation_pictures_are_encoded_too_and_share_the_batches(
    place: Place, measured: None, tmp_path: Path
) -> None:
    prior = save_pictures(tmp_path / "prior", [(80, 80)] * 5, first_seed=50)
    alone, mixed = place.forecast(), place.forecast(prior_dataset=str(prior))
    assert mixed.num_pictures == alone.num_pictures
    assert mixed.epochs == alone.epochs / 2
    assert mixed.encoding_seconds == alone.encoding_seconds + 5 * 0.5
    with pytest.raises(DatasetError, match="no dataset and no folder"):
        place.forecast(prior_dataset=str(tmp_path / "nowhere"))


def test_memory_and_time_are_those_of_the_way_that_is_taken(place: Place, measured: None) -> None:
    off, on = (place.forecast(gradient_checkpointing=choice) for choice in ("off", "on"))
    assert (off.peak_bytes, off.step_seconds) == (KEPT.peak_bytes, 6.0)
    assert (on.peak_bytes, on.step_seconds) == (TWICE.peak_bytes, 7.5)


def test_where_keeping_could_not_be_tried_the_other_way_is_forecast(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = preflight._Measured(with_checkpointing=TWICE, without=None, encoding_seconds=0.5, picture_seconds=1.0)
    monkeypatch.setattr(preflight, "_measure", lambda prepared, report: only)
    found = place.forecast(gradient_checkpointing="off")
    assert found.gradient_checkpointing
    assert found.peak_bytes == TWICE.peak_bytes
    assert not any("gradient_checkpointing" in offer.changes for offer in found.offers)


def test_disk_grows_with_what_is_kept(place: Place, measured: None) -> None:
    plain = place.forecast().disk_bytes
    assert place.forecast(keep_checkpoints=9).disk_bytes > plain
    assert place.forecast(keep_every_steps=100).disk_bytes > plain
    assert place.forecast(use_ema=True).disk_bytes > plain
    assert place.forecast(rank=8).disk_bytes > plain
    assert place.forecast(keep_every_steps=None).disk_bytes < plain


def test_every_offer_says_what_it_does_and_can_be_taken(place: Place, measured: None) -> None:
    found = place.forecast(gradient_checkpointing="off")
    half = place.forecast(gradient_checkpointing="off", max_train_steps=500)
    effects = {tuple(offer.changes.items()): offer.effect for offer in found.offers}
    assert effects == {
        (("gradient_checkpointing", "on"),): "checkpointing on: −2.0 GB, +25% time (measured)",
        (("max_train_steps", 500),): f"500 steps: {duration(found.total_seconds - half.total_seconds)} less",
    }
    assert found.total_seconds - half.total_seconds > 500 * found.step_seconds, "fewer images are made, too"
    for offer in found.offers:
        assert place.settings(**offer.changes) != place.settings()
    other = place.forecast(gradient_checkpointing="on").offers[0]
    assert other.effect == "checkpointing off: +2.0 GB, −20% time (measured)"


@pytest.mark.parametrize(
    ("batch", "accumulation", "smaller"),
    [(2, 3, (1, 6)), (3, 1, (1, 3)), (5, 3, (1, 15)), (6, 2, (3, 4)), (9, 1, (3, 3))],
)
def test_smaller_batches_are_offered_with_the_same_pictures_to_a_step(
    batch: int, accumulation: int, smaller: tuple[int, int], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    less = replace(MEASURED, half=PassFacts(seconds=1.5, peak_bytes=3 * GIB))
    monkeypatch.setattr(preflight, "_measure", lambda prepared, report: less)
    found = place.forecast(train_batch_size=batch, gradient_accumulation_steps=accumulation)
    changes = next(offer.changes for offer in found.offers if "train_batch_size" in offer.changes)
    assert (changes["train_batch_size"], changes["gradient_accumulation_steps"]) == smaller
    assert smaller[0] * smaller[1] == batch * accumulation
    effect = next(offer.effect for offer in found.offers if "train_batch_size" in offer.changes)
    slower = round(100 * (1.5 * batch / smaller[0] / KEPT.seconds - 1))
    assert effect.endswith(f"−3.0 GB, +{slower}% time (measured)")


@pytest.mark.parametrize(("share", "is_measured"), [(1.2, False), (1.0, True)])
def test_half_a_batch_is_measured_where_memory_is_short_and_not_offered_else(
    place: Place, monkeypatch: pytest.MonkeyPatch, share: float, is_measured: bool
) -> None:
    sizes: list[int | None] = []

    def passes(prepared: Prepared, *, on: bool = False, size: int | None = None, **_: object) -> PassFacts:
        sizes.append(len(prepared.maker.batch(0).first(size).keys))
        return TWICE if on else PassFacts(seconds=2.0, peak_bytes=KEPT.peak_bytes // (1 if size is None else 2))

    monkeypatch.setattr(preflight, "_passes", passes)
    monkeypatch.setattr(preflight, "_memory_limit", lambda device: int(share * KEPT.peak_bytes))
    found = place.forecast(gradient_checkpointing="off")
    assert sizes == [4, 4, 2] if is_measured else [4, 4]
    assert any("train_batch_size" in offer.changes for offer in found.offers) == is_measured


@pytest.mark.parametrize("other", [KEPT, PassFacts(seconds=1.95, peak_bytes=7 * GIB)])
def test_what_gained_nothing_when_it_was_tried_is_not_offered(
    place: Place, monkeypatch: pytest.MonkeyPatch, other: PassFacts
) -> None:
    monkeypatch.setattr(preflight, "_measure", lambda prepared, report: replace(MEASURED, with_checkpointing=other))
    found = place.forecast(gradient_checkpointing="off")
    assert not any("gradient_checkpointing" in offer.changes for offer in found.offers)


def test_where_sizes_repeat_images_a_bucket_step_is_offered(place: Place, measured: None, tmp_path: Path) -> None:
    """Images below the resolution of 64, in steps of 8: the model's usual step of 16 makes fewer sizes."""
    dataset = save_pictures(tmp_path / "many", [(40, 40), (40, 40), (48, 48), (56, 56), (56, 56)])
    found = place.forecast(dataset=str(dataset), train_batch_size=3)
    offers = {str(offer.changes): offer.effect for offer in found.offers}
    assert offers["{'bucket_step': 16}"] == "2 training sizes instead of 3: fewer repeats in a batch"
    stepped = place.forecast(dataset=str(dataset), train_batch_size=3, bucket_step=16)
    assert not any("bucket_step" in offer.changes for offer in stepped.offers)


def test_a_batch_of_one_and_a_short_training_are_offered_nothing_smaller(place: Place, measured: None) -> None:
    found = place.forecast(train_batch_size=1, max_train_steps=100)
    assert [list(offer.changes) for offer in found.offers] == [["gradient_checkpointing"]]


def test_where_all_fits_nothing_is_warned_of(place: Place, measured: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with_limits(monkeypatch, memory=64 * GIB, disk=100 * GIB)
    assert place.forecast().warnings == ()


def test_what_other_programs_make_of_the_file_is_warned_of(
    place: Place, measured: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_limits(monkeypatch, memory=64 * GIB, disk=100 * GIB)
    dora, ends = place.forecast(use_dora=True, targets="attention + feed-forward + convolutions").warnings
    assert dora.startswith("DoRA is computed otherwise by A1111")
    assert ends.startswith("sd-scripts' own LoRA reader drops conv_in and conv_out;")


def test_little_memory_and_little_disk_are_warned_of(
    place: Place, measured: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_limits(monkeypatch, memory=6 * GIB, disk=1000)
    found = place.forecast()
    memory, disk = found.warnings
    assert memory.startswith("It needs 6.0 GB of 6.0 GB: the machine would swap or end it.")
    assert "are free. Free some first." in disk
    lines = preflight_text(found).splitlines()
    assert [line for line in lines if line.startswith("! ")] == [f"! {memory}", f"! {disk}"]


def with_limits(monkeypatch: pytest.MonkeyPatch, *, memory: int, disk: int) -> None:
    available = psutil.virtual_memory().available
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=memory, available=available))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=disk))


def test_the_text_says_what_a_person_asks(place: Place, measured: None) -> None:
    text = preflight_text(place.forecast(gradient_accumulation_steps=1))
    assert text.startswith("1,000 steps ≈ ")
    assert "A step is one batch, 2.0 s. 8 images, each seen about 500.0 times." in text
    assert "--set max_train_steps=500" in text


def test_passes_are_computed_in_the_precision_of_the_training(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA, mixed precision halves both: here the CPU's bfloat16 stands in for it."""
    seen: set[torch.dtype] = set()
    monkeypatch.setattr(Processes, "half_precision", torch.bfloat16)

    def watched(*args: object, **options: object) -> Prepared:
        prepared = prepare(*args, **options)  # type: ignore[arg-type]
        prepared.denoiser.register_forward_hook(lambda module, inputs, output: seen.add(module.unet.dtype))
        return prepared

    monkeypatch.setattr(preflight, "prepare", watched)
    place.forecast()
    assert seen == {torch.bfloat16}


def test_passes_are_timed_with_the_loss_of_the_training(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> torch.Tensor:
        raise TrainingError("the training's own loss")

    monkeypatch.setattr(NoiseLoss, "by_image", refused)
    with pytest.raises(TrainingError, match="the training's own loss"):
        place.forecast(loss_type="huber")


def test_prompts_that_are_cut_off_or_act_otherwise_are_warned_of(place: Place, measured: None) -> None:
    long = " ".join(["shoe"] * 75) + " sole"
    cut_off, command = place.forecast(
        validation_prompts=(long, "a [red|blue] shoe", "(plain:1.2)"), num_validation_images=3
    ).warnings
    assert cut_off == f"validation_prompts {long[:40]!r}: Cut off after 75 tokens: “sole”."
    assert command.startswith("validation_prompts 'a [red|blue] shoe': [a|b] alternates between steps in A1111")


def test_what_would_stop_the_training_stops_the_forecast(place: Place, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no dataset and no folder"):
        place.forecast(dataset=str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match="no model folder"):
        place.forecast(model=str(tmp_path / "nowhere"))


def test_a_batch_larger_than_the_dataset_is_forecast_too(place: Place, measured: None) -> None:
    assert place.forecast(train_batch_size=64).epochs == 1000 * 3 * 64 / 8


def test_settings_that_do_not_fit_together_are_refused_before_anything_is_read(place: Place) -> None:
    with pytest.raises(SettingsError, match=r"Warm-up .* must be at most Steps .* which is 100, got 400"):
        place.forecast(max_train_steps=100, lr_warmup_steps=400, dataset="nowhere")
