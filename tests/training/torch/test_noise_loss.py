"""The loss and its gradients, against the same step written with diffusers and peft alone, without any cache."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from peft import LoraConfig
from PIL import Image
from torch import nn
from torch.nn import functional

from studio.core.paths import assets_folder
from studio.core.settings import SHIPPED_MODEL
from studio.datasets.snapshot import Snapshot
from studio.engine.models import Components
from studio.engine.pipeline import PipelineManager
from studio.training.torch.adapters import Adapters
from studio.training.torch.batches import TrainingBatch, draw
from studio.training.torch.loss import Denoiser, NoiseLoss, huber_thresholds, snr_weights
from studio.training.torch.processes import Processes
from tests.training.torch.parts import (
    Bench,
    give_effect,
    make_adapters,
    make_bench,
    make_loop,
    settings_of,
)

MODEL = assets_folder() / SHIPPED_MODEL
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
OTHERS = {
    "attention": [],
    "attention + feed-forward + convolutions": [
        "ff.net.0.proj",
        "ff.net.2",
        "proj_in",
        "proj_out",
        "conv1",
        "conv2",
        "conv_in",
        "conv_out",
    ],
}
# Options beside rank 4 and alpha 16; each is a step of its own.
STEPS: dict[str, dict[str, object]] = {
    "plain": {},
    "min-SNR, noise offset and text encoder": {"snr_gamma": 5.0, "noise_offset": 0.1, "train_text_encoder": True},
    "all layers, rsLoRA": {"targets": "attention + feed-forward + convolutions", "use_rslora": True},
    "DoRA, captions dropped": {"use_dora": True, "caption_dropout": 0.5},
    "smooth_l1 by SNR, min-SNR": {"loss_type": "smooth_l1", "huber_c": 0.3, "snr_gamma": 5.0},
    "mirrored, with a trigger word": {"horizontal_flip": True, "trigger_word": "sks"},
}
# diffusers' own pixels differ from ours in the last bit of float32, which gradients of attention amplify to 1e-5.
TOLERANCE = 3e-5
Gradients = dict[str, torch.Tensor]


@pytest.fixture
def components(manager: PipelineManager) -> Components:
    """A copy of the shipped model's parts: its gradients are those of a model that was trained."""
    return copy.deepcopy(manager.components)


class PlainTraining:
    """The shipped model as diffusers reads it, with peft's layers by diffusers' and transformers' own methods."""

    def __init__(self, bench: Bench, initial: dict[str, torch.Tensor], *, v_prediction: bool = False) -> None:
        self.settings = settings = bench.settings
        self.pipe = StableDiffusionPipeline.from_pretrained(MODEL, safety_checker=None, dtype=torch.float32)
        prediction_type = "v_prediction" if v_prediction else "epsilon"
        self.schedule = DDPMScheduler.from_pretrained(MODEL / "scheduler", prediction_type=prediction_type)
        options = {
            "r": settings.rank,
            "lora_alpha": settings.lora_alpha,
            "use_rslora": settings.use_rslora,
            "use_dora": settings.use_dora,
        }
        for module in (self.pipe.vae, self.pipe.unet, self.pipe.text_encoder):
            module.requires_grad_(False)
        self.pipe.unet.add_adapter(LoraConfig(target_modules=ATTENTION + OTHERS[settings.targets], **options))
        if settings.train_text_encoder:
            text_layers = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
            self.pipe.text_encoder.add_adapter(LoraConfig(target_modules=text_layers, **options))
        self.parameters = self._learning()
        assert self.parameters.keys() == initial.keys()
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(initial[name])

    def double(self) -> "PlainTraining":
        """What learns computes in float64."""
        self.pipe.unet.double()
        if self.settings.train_text_encoder:
            self.pipe.text_encoder.double()
        return self

    def _learning(self) -> dict[str, nn.Parameter]:
        parts = {"unet": self.pipe.unet, "text_encoder": self.pipe.text_encoder}
        return {
            f"{part}.{name}": parameter
            for part, module in parts.items()
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }

    def losses(self, snapshot: Snapshot, keys: tuple[str, ...], number: int) -> torch.Tensor:
        """(B,) of one batch, from the image files on."""
        settings, losses = self.settings, []
        for slot, key in enumerate(keys):
            entry = next(entry for entry in snapshot.entries if entry.key == key)
            with Image.open(entry.path) as image:  # 80 × 80 and 100 × 60 have just the shapes of their buckets
                size = (64, 64) if image.size == (80, 80) else (80, 48)
                picture = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
            chance = draw(
                settings.seed, number, slot, shape_CHW=(4, size[1] // 8, size[0] // 8), num_train_timesteps=1000
            )
            if settings.horizontal_flip and chance.flip < 0.5:
                picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            pixels = self.pipe.image_processor.preprocess(picture)
            caption = f"{settings.trigger_word}, {entry.caption}" if settings.trigger_word else entry.caption
            if chance.drop_caption < settings.caption_dropout:
                caption = ""
            losses.append(self._loss(pixels, caption, chance.timestep, chance))
        return torch.stack(losses)

    def _loss(self, pixels: torch.Tensor, caption: str, timestep: int, chance: object) -> torch.Tensor:
        settings = self.settings
        with torch.no_grad():
            posterior = self.pipe.vae.encode(pixels).latent_dist
        latents = posterior.mean + posterior.std * chance.posterior_CHW[None]  # type: ignore[attr-defined]
        latents = latents * self.pipe.vae.config.scaling_factor
        noise = chance.noise_CHW[None]  # type: ignore[attr-defined]
        noise = noise + settings.noise_offset * chance.offset_C11[None]  # type: ignore[attr-defined]
        times = torch.tensor([timestep])
        noisy = self.schedule.add_noise(latents, noise, times)
        text, _ = self.pipe.encode_prompt(caption, torch.device("cpu"), 1, False)
        unet_dtype = self.pipe.unet.dtype
        found = self.pipe.unet(noisy.to(unet_dtype), times, text.to(unet_dtype)).sample.float()
        is_v = self.schedule.config.prediction_type == "v_prediction"
        target = self.schedule.get_velocity(latents, noise, times) if is_v else noise
        loss = functional.mse_loss(found, target)
        if settings.loss_type == "smooth_l1":
            signal = self.schedule.alphas_cumprod[timestep].double()
            c = (1 - settings.huber_c) / (1 + ((1 - signal) / signal) ** 0.5) ** 2 + settings.huber_c
            loss = (2 * (((found - target).double() ** 2 + c**2) ** 0.5 - c)).mean().float()
        if settings.snr_gamma is not None:
            loss = loss * weight_by_formula(timestep, settings.snr_gamma, v_prediction=is_v)
        return loss


def weight_by_formula(timestep: int, gamma: float, *, v_prediction: bool) -> float:
    """min-SNR of arXiv 2303.09556, from the betas on, in float64."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=np.float64) ** 2
    signal = float(np.prod(1 - betas[: timestep + 1]))
    snr = (signal**0.5 / (1 - signal) ** 0.5) ** 2
    return min(snr, gamma) / (snr + 1) if v_prediction else min(snr, gamma) / snr


def our_step(bench: Bench, adapters: Adapters) -> tuple[list[torch.Tensor], Gradients, list[TrainingBatch]]:
    """Losses and gradients of one optimizer step, by the parts that the loop is made of.

    The model computes in float64, here and in the reference: in float32 the two sides' rounding is all that differs.
    """
    denoiser = Denoiser(bench.components, train_text_encoder=bench.settings.train_text_encoder).double()
    accumulation = bench.settings.gradient_accumulation_steps
    all_losses, batches = [], [bench.maker.batch(number) for number in range(accumulation)]
    for batch in batches:
        text = batch.text_BND.double() if batch.text_BND.is_floating_point() else batch.text_BND
        prediction = denoiser(batch.noisy_BCHW.double(), batch.timesteps_B, text)
        losses = bench.noise_loss.weighted(prediction, batch)
        (losses.mean() / accumulation).backward()
        all_losses.append(losses.detach())
    return all_losses, gradients_of(dict(adapters.named_parameters())), batches


def gradients_of(parameters: dict[str, nn.Parameter]) -> Gradients:
    gradients = {}
    for name, parameter in parameters.items():
        assert parameter.grad is not None, name
        gradients[name] = parameter.grad.clone()
    return gradients


def assert_close_by_size(found: torch.Tensor, wanted: torch.Tensor, name: str) -> None:
    """By the tensor's length: single numbers next to zero are sums that cancel."""
    error = float((found.double() - wanted.double()).norm() / wanted.double().norm())
    assert error < TOLERANCE, f"{name}: {error}"


@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_what_diffusers_and_peft_compute_without_us(
    name: str, snapshot: Snapshot, components: Components, cache: Path
) -> None:
    """THE reference: losses and every gradient of batch 2 × accumulation 2."""
    bench = make_bench(snapshot, settings_of(**STEPS[name]), components, cache)
    adapters = make_adapters(bench)
    give_effect(adapters)  # so that no gradient is zero
    initial = {path: p.detach().clone() for path, p in adapters.named_parameters()}
    losses, gradients, batches = our_step(bench, adapters)

    plain = PlainTraining(bench, initial).double()
    wanted = [plain.losses(snapshot, batch.keys, number) for number, batch in enumerate(batches)]
    torch.cat(wanted).mean().backward()
    torch.testing.assert_close(torch.cat(losses), torch.cat(wanted).detach(), atol=0, rtol=1e-5)
    reference = gradients_of(plain.parameters)
    assert gradients.keys() == reference.keys()
    assert all(float(gradient.norm()) > 0 for gradient in reference.values())
    for path, gradient in gradients.items():
        assert_close_by_size(gradient, reference[path], path)


def test_the_loop_takes_the_same_step(
    snapshot: Snapshot, components: Components, cache: Path, processes: Processes, tmp_path: Path
) -> None:
    """Two steps of the loop itself, with clipping, warm-up and a rate for each part, against torch's AdamW by hand."""
    settings = settings_of(
        max_train_steps=2,
        learning_rate=1e-2,
        text_encoder_learning_rate=3e-3,
        train_text_encoder=True,
        max_grad_norm=0.01,
        weight_decay=0.1,
        lr_scheduler="linear",
        lr_warmup_steps=2,
    )
    bench = make_bench(snapshot, settings, components, cache)
    adapters = make_adapters(bench)
    give_effect(adapters)
    initial = {name: p.detach().clone() for name, p in adapters.named_parameters()}
    keys = [bench.maker.batch(number).keys for number in range(4)]
    assert make_loop(bench, adapters, processes, tmp_path).train() == "finished"
    found = {name: p.detach() for name, p in adapters.named_parameters()}

    plain = PlainTraining(bench, initial)
    unet = [p for name, p in plain.parameters.items() if name.startswith("unet.")]
    text = [p for name, p in plain.parameters.items() if name.startswith("text_encoder.")]
    optimizer = torch.optim.AdamW([{"params": unet, "lr": 0.0}, {"params": text, "lr": 0.0}], weight_decay=0.1)
    for step in range(2):
        optimizer.zero_grad()
        torch.cat([plain.losses(snapshot, keys[2 * step + i], 2 * step + i) for i in range(2)]).mean().backward()
        norm = nn.utils.clip_grad_norm_(unet + text, 0.01)
        assert norm > 0.01, "clipping must do something"
        factor = (step + 1) / 2  # warm-up over two steps: half of the rate, then the whole
        for group, rate in zip(optimizer.param_groups, (1e-2, 3e-3), strict=True):
            group["lr"] = factor * rate
        optimizer.step()
    for name, wanted in plain.parameters.items():
        moved = wanted.detach() - initial[name]
        assert float(moved.norm()) > 0, name
        error = float((found[name] - wanted.detach()).norm() / moved.norm())
        assert error < 2e-3, f"{name}: {error}"  # AdamW divides by the size of each gradient, small ones too


@pytest.mark.parametrize("gamma", [0.5, 5.0, 20.0])
@pytest.mark.parametrize("v_prediction", [False, True], ids=["epsilon", "v"])
def test_min_snr_weights_are_those_of_the_paper(gamma: float, v_prediction: bool) -> None:
    prediction_type = "v_prediction" if v_prediction else "epsilon"
    schedule = DDPMScheduler.from_pretrained(MODEL / "scheduler", prediction_type=prediction_type)
    timesteps = torch.arange(1000)
    found = snr_weights(schedule, timesteps, gamma)
    wanted = torch.tensor([weight_by_formula(t, gamma, v_prediction=v_prediction) for t in range(1000)])
    torch.testing.assert_close(found.double(), wanted.double(), atol=0, rtol=2e-4)
    assert float(found.max()) <= 1
    assert float(found.min()) < 0.7, "it must weigh something less"


@pytest.mark.parametrize(("prediction_type", "weight"), [("epsilon", 1.0), ("v_prediction", 0.0)])
def test_min_snr_weights_of_noise_alone_are_numbers(prediction_type: str, weight: float) -> None:
    """min(SNR, γ) / SNR is 0 / 0 at SNR 0, and 1 at every SNR below γ; for v it is 0 / 1."""
    schedule = DDPMScheduler.from_pretrained(
        MODEL / "scheduler", prediction_type=prediction_type, rescale_betas_zero_snr=True
    )
    assert schedule.alphas_cumprod[-1] < 1e-10, "the schedule ends in noise alone"
    schedule.alphas_cumprod[-1] = 0
    assert snr_weights(schedule, torch.tensor([999]), 5.0).tolist() == [weight]
    assert bool(torch.isfinite(snr_weights(schedule, torch.arange(1000), 5.0)).all())


LOSSES = [(kind, schedule) for kind in ("huber", "smooth_l1") for schedule in ("constant", "exponential", "snr")]


def a_batch(*, mask: bool = False, size: int = 6) -> tuple[torch.Tensor, TrainingBatch]:
    """A prediction and a batch, all of noise: differences of every size, timesteps from the first to the last."""
    generator = torch.Generator().manual_seed(5)
    target, difference = (torch.randn(size, 4, 8, 8, generator=generator) for _ in range(2))
    batch = TrainingBatch(
        keys=("a",) * size,
        noisy_BCHW=target,
        target_BCHW=target,
        timesteps_B=torch.linspace(0, 999, size).long(),
        text_BND=torch.zeros(size, 77, 8),
        weights_B=torch.rand(size, generator=generator) + 0.5,
        mask_B1HW=torch.rand(size, 1, 8, 8, generator=generator) if mask else None,
    )
    return target + difference * torch.logspace(-4, 2, size).view(-1, 1, 1, 1), batch


def noise_scheduler_of(prediction_type: str = "epsilon") -> DDPMScheduler:
    return DDPMScheduler.from_pretrained(MODEL / "scheduler", prediction_type=prediction_type)


def loss_by_formula(prediction: torch.Tensor, batch: TrainingBatch, kind: str, schedule: str, c: float) -> np.ndarray:
    """(B,) as kohya's definitions read, from the betas on, in float64."""
    timesteps = batch.timesteps_B.numpy()
    signal = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=np.float64) ** 2)[timesteps]
    thresholds = {
        "constant": np.full(len(timesteps), c),
        "exponential": np.exp(-(-np.log(c) / 1000) * timesteps),
        "snr": (1 - c) / (1 + ((1 - signal) / signal) ** 0.5) ** 2 + c,
    }[schedule].reshape(-1, 1, 1, 1)
    difference = prediction.double().numpy() - batch.target_BCHW.double().numpy()
    errors = 2 * (np.sqrt(difference**2 + thresholds**2) - thresholds)
    if kind == "huber":
        errors = errors * thresholds
    mask = 1.0 if batch.mask_B1HW is None else batch.mask_B1HW.double().numpy()
    return np.asarray((errors * mask).mean(axis=(1, 2, 3)) * batch.weights_B.double().numpy())


@pytest.mark.parametrize("c", [0.01, 0.1, 1.0, 3.0])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize(("kind", "schedule"), LOSSES)
def test_huber_and_smooth_l1_are_what_kohyas_formulas_say(kind: str, schedule: str, mask: bool, c: float) -> None:
    prediction, batch = a_batch(mask=mask)
    noise_loss = NoiseLoss(settings_of(loss_type=kind, huber_schedule=schedule, huber_c=c), noise_scheduler_of())
    wanted = loss_by_formula(prediction, batch, kind, schedule, c)
    found = noise_loss.weighted(prediction, batch)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), wanted, rtol=2e-4)  # the scheduler's own ᾱ is of float32 betas


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_l2_is_to_the_bit_the_weighted_mean_of_squares(prediction_type: str) -> None:
    """Runs of before there was a choice go on with the same numbers."""
    prediction, batch = a_batch(mask=True)
    scheduler = noise_scheduler_of(prediction_type)
    assert batch.mask_B1HW is not None
    squares = (prediction.float() - batch.target_BCHW.float()).square() * batch.mask_B1HW
    wanted = squares.mean(dim=(1, 2, 3)) * batch.weights_B
    assert torch.equal(NoiseLoss(settings_of(), scheduler).weighted(prediction, batch), wanted)
    weighted = wanted * snr_weights(scheduler, batch.timesteps_B, 5.0)
    assert torch.equal(NoiseLoss(settings_of(snr_gamma=5.0), scheduler).weighted(prediction, batch), weighted)


@pytest.mark.parametrize(("kind", "schedule"), LOSSES)
def test_min_snr_weighs_every_kind_of_loss_alike(kind: str, schedule: str) -> None:
    prediction, batch = a_batch()
    scheduler, changes = noise_scheduler_of(), {"loss_type": kind, "huber_schedule": schedule}
    plain = NoiseLoss(settings_of(**changes), scheduler).weighted(prediction, batch)
    weighted = NoiseLoss(settings_of(snr_gamma=5.0, **changes), scheduler).weighted(prediction, batch)
    assert torch.equal(weighted, plain * snr_weights(scheduler, batch.timesteps_B, 5.0))


@pytest.mark.parametrize("kind", ["l2", "huber", "smooth_l1"])
@pytest.mark.parametrize("c", [1e-4, 0.1, 100.0])
def test_gradients_are_finite_at_no_difference_and_at_huge_ones(kind: str, c: float) -> None:
    _, batch = a_batch(size=3)
    difference = torch.tensor([0.0, 1e-12, 1e6]).view(-1, 1, 1, 1)
    prediction = (batch.target_BCHW + difference).requires_grad_()
    noise_loss = NoiseLoss(settings_of(loss_type=kind, huber_c=c, huber_schedule="constant"), noise_scheduler_of())
    noise_loss.weighted(prediction, batch).sum().backward()
    assert prediction.grad is not None
    assert bool(torch.isfinite(prediction.grad).all())
    assert bool((prediction.grad[0] == 0).all())


def test_the_limits_are_l2_where_c_is_large_and_absolute_differences_where_it_is_small() -> None:
    prediction, batch = a_batch()

    def loss(kind: str, c: float = 1.0) -> torch.Tensor:
        settings = settings_of(loss_type=kind, huber_c=c, huber_schedule="constant")
        return NoiseLoss(settings, noise_scheduler_of()).by_image(prediction, batch)

    torch.testing.assert_close(loss("huber", 100.0)[:4], loss("l2")[:4], atol=0, rtol=2e-2)
    torch.testing.assert_close(loss("smooth_l1", 100.0)[:4], loss("l2")[:4] / 100, atol=0, rtol=2e-2)
    absolute = (prediction - batch.target_BCHW).abs().mean(dim=(1, 2, 3))[2:]
    torch.testing.assert_close(loss("smooth_l1", 1e-4)[2:], 2 * absolute, atol=0, rtol=1e-1)


def test_a_huber_threshold_of_noise_alone_is_huber_c() -> None:
    """σ is infinite at SNR 0, where a zero-terminal-SNR schedule ends."""
    scheduler = noise_scheduler_of()
    scheduler.alphas_cumprod[-1] = 0
    thresholds = huber_thresholds(scheduler, torch.tensor([0, 999]), settings_of(loss_type="huber", huber_c=0.2))
    assert thresholds.tolist() == [pytest.approx(1, abs=0.06), pytest.approx(0.2)]


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_min_snr_scales_each_pictures_loss_by_its_timestep(
    prediction_type: str, snapshot: Snapshot, training_manager: PipelineManager, cache: Path
) -> None:
    bench = make_bench(
        snapshot,
        settings_of(train_batch_size=4),
        training_manager.components,
        cache,
        prediction_type=prediction_type,
    )
    for number in range(4):
        batch = bench.maker.batch(number)
        prediction = torch.zeros_like(batch.target_BCHW)
        plain = bench.noise_loss.weighted(prediction, batch)
        weighted = NoiseLoss(settings_of(snr_gamma=5.0), bench.noise_scheduler).weighted(prediction, batch)
        is_v = prediction_type == "v_prediction"
        factors = [weight_by_formula(t, 5.0, v_prediction=is_v) for t in batch.timesteps_B.tolist()]
        torch.testing.assert_close(weighted, plain * torch.tensor(factors), atol=0, rtol=1e-4)


def test_a_v_models_step_is_what_diffusers_computes(snapshot: Snapshot, components: Components, cache: Path) -> None:
    settings = settings_of(snr_gamma=5.0, noise_offset=0.1)
    bench = make_bench(snapshot, settings, components, cache, prediction_type="v_prediction")
    adapters = make_adapters(bench)
    give_effect(adapters)
    initial = {name: p.detach().clone() for name, p in adapters.named_parameters()}
    losses, gradients, batches = our_step(bench, adapters)
    plain = PlainTraining(bench, initial, v_prediction=True).double()
    wanted = torch.cat([plain.losses(snapshot, batch.keys, number) for number, batch in enumerate(batches)])
    wanted.mean().backward()
    torch.testing.assert_close(torch.cat(losses), wanted.detach(), atol=0, rtol=1e-5)
    reference = gradients_of(plain.parameters)
    for path, gradient in gradients.items():
        assert_close_by_size(gradient, reference[path], path)


def test_each_picture_has_a_loss_of_its_own(snapshot: Snapshot, training_manager: PipelineManager, cache: Path) -> None:
    """Written out, number by number."""
    bench = make_bench(snapshot, settings_of(train_batch_size=3), training_manager.components, cache)
    batch = bench.maker.batch(0)
    prediction = torch.randn(batch.target_BCHW.shape, generator=torch.Generator().manual_seed(1))
    losses = bench.noise_loss.weighted(prediction, batch)
    errors = (prediction.double().numpy() - batch.target_BCHW.double().numpy()) ** 2
    assert losses.tolist() == pytest.approx([float(errors[i].mean()) for i in range(3)], rel=1e-6)
    assert losses.dtype == torch.float32


def test_a_half_precision_prediction_is_compared_in_float32(
    snapshot: Snapshot, training_manager: PipelineManager, cache: Path
) -> None:
    bench = make_bench(snapshot, settings_of(), training_manager.components, cache)
    batch = bench.maker.batch(0)
    prediction = (batch.target_BCHW + 300).half()  # its square, 90,000, is no float16
    losses = bench.noise_loss.weighted(prediction, batch)
    assert losses.tolist() == pytest.approx([90_000] * 2, rel=1e-3)


def test_a_steps_gradient_is_the_mean_of_its_batches(
    snapshot: Snapshot, components: Components, cache: Path, processes: Processes, tmp_path: Path
) -> None:
    """Accumulation 4, as the optimizer gets it: clipped."""
    settings = settings_of(train_batch_size=1, gradient_accumulation_steps=4, max_train_steps=1, weight_decay=0)
    bench = make_bench(snapshot, settings, components, cache)
    adapters = make_adapters(bench)
    give_effect(adapters)
    single = []
    for number in range(4):
        batch = bench.maker.batch(number)
        prediction = Denoiser(components, train_text_encoder=False)(batch.noisy_BCHW, batch.timesteps_B, batch.text_BND)
        bench.noise_loss.weighted(prediction, batch).mean().backward()
        single.append(torch.cat([p.grad.flatten() for p in adapters.parameters() if p.grad is not None]))
        for parameter in adapters.parameters():
            parameter.grad = None
    loop = make_loop(bench, adapters, processes, tmp_path)
    seen: list[torch.Tensor] = []
    step = loop.state.optimizer.step

    def watched() -> None:
        seen.append(torch.cat([p.grad.flatten() for p in adapters.parameters() if p.grad is not None]))
        step()

    loop.state.optimizer.step = watched  # type: ignore[method-assign]
    loop.train()
    (found,) = seen
    mean = torch.stack(single).mean(dim=0)
    assert_close_by_size(found, mean * min(1.0, 1.0 / float(mean.norm())), "accumulated")
