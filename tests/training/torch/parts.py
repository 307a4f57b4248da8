"""The parts of a training, put together by hand from small images: what the tests of this folder take apart."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDPMScheduler
from PIL import Image, ImageDraw
from torch import nn

from studio.datasets.snapshot import Snapshot, make_snapshot, sha256_of, with_masks
from studio.datasets.source import DatasetRecipe
from studio.engine.denoise import vae_scale_factor
from studio.engine.memory import MemoryWatch
from studio.engine.models import Components
from studio.training.folder import RunFolder
from studio.training.settings import TrainingSettings
from studio.training.torch.adapters import Adapters
from studio.training.torch.batches import BatchMaker
from studio.training.torch.caches import LatentCache, MaskCache, TextCache, digest_of
from studio.training.torch.checkpoints import Position, TrainingState
from studio.training.torch.data import TrainingItem, TrainingSet, captions_of, make_training_set
from studio.training.torch.loop import OptimizerSteps, TrainingLoop
from studio.training.torch.loss import Denoiser, NoiseLoss
from studio.training.torch.optimizers import RunningMean, make_optimizer, make_schedule
from studio.training.torch.processes import Processes
from tests.datasets.rows import make_facts, make_row

RESOLUTION = 64
CPU = torch.device("cpu")
CAPTIONS = (
    "a red shoe, white ground, side view",
    "a black boot, white ground",
    "a blue sandal, grey ground",
    "a green sneaker, top view, white ground",
    "a brown loafer, white ground",
    "a white heel, black ground",
    "a yellow clog, white ground, side view",
    "a pink slipper, grey ground",
)


def settings_of(**changes: object) -> TrainingSettings:
    """Small numbers, nothing held out, with what the test says otherwise."""
    small: dict[str, object] = {
        "dataset": "shoes",
        "resolution": RESOLUTION,
        "rank": 4,
        "train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "max_train_steps": 4,
        "held_out_percent": 0,
        "num_validation_images": 0,
        "cpu": True,
    }
    return TrainingSettings.model_validate({**small, **changes})


def save_picture(path: Path, *, size: tuple[int, int] = (80, 80), seed: int = 0) -> None:
    """An image whose left and right, top and bottom are not alike."""
    rng = random.Random(seed)
    width, height = size
    image = Image.linear_gradient("L").resize(size).rotate(90 * (seed % 4)).resize(size).convert("RGB")
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = rng.randrange(width), rng.randrange(height)
        colour = tuple(rng.randrange(256) for _ in range(3))
        draw.ellipse((x, y, x + rng.randrange(8, 40), y + rng.randrange(8, 40)), fill=colour)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def save_pictures(folder: Path, sizes: Sequence[tuple[int, int]], *, first_seed: int = 0) -> Path:
    """One image of each size, with captions beside them."""
    for index, size in enumerate(sizes):
        save_picture(folder / f"{index:03}.png", size=size, seed=first_seed + index)
        (folder / f"{index:03}.txt").write_text(CAPTIONS[index % len(CAPTIONS)], encoding="utf-8")
    return folder


def snapshot_of(folder: Path, *, repeats: Mapping[str, int] | None = None, background: str = "#ffffff") -> Snapshot:
    """Of all PNGs of a folder, with the captions beside them."""
    rows = []
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            width, height = image.size
        caption = path.with_suffix(".txt")
        facts = make_facts(sha256=sha256_of(path), num_bytes=path.stat().st_size, width=width, height=height)
        rows.append(
            make_row(
                path.name,
                caption.read_text(encoding="utf-8") if caption.is_file() else "",
                path=path,
                facts=facts,
                repeats=(repeats or {}).get(path.name, 1),
            )
        )
    return make_snapshot(folder.name, DatasetRecipe(source=str(folder), background=background), rows)


def snapshot_of_sizes(sizes: Sequence[tuple[int, int]], *, repeats: Sequence[int] = ()) -> Snapshot:
    """Of images that need not be there, each with bytes of its own."""
    rows = [
        make_row(
            f"{index:04}.png",
            f"caption {index}",
            facts=make_facts(sha256=f"{index:064x}", width=width, height=height),
            repeats=repeats[index] if repeats else 1,
        )
        for index, (width, height) in enumerate(sizes)
    ]
    return make_snapshot("sizes", DatasetRecipe(source="/nowhere"), rows)


def items_of(snapshot: Snapshot, *, resolution: int = RESOLUTION, **changes: object) -> tuple[TrainingItem, ...]:
    """What training makes of a snapshot."""
    return make_training_set(snapshot, settings_of(**changes), resolution=resolution).items


@dataclass(frozen=True)
class Bench:
    """Pictures that are encoded, and what makes batches of them; no layers are in the model yet."""

    settings: TrainingSettings
    components: Components
    data: TrainingSet
    latents: LatentCache
    texts: TextCache
    noise_scheduler: DDPMScheduler
    maker: BatchMaker
    noise_loss: NoiseLoss

    def item(self, key: str) -> TrainingItem:
        return next(item for item in (*self.data.items, *self.data.held_out) if item.key == key)


def make_bench(
    snapshot: Snapshot,
    settings: TrainingSettings,
    components: Components,
    cache: Path,
    *,
    prior: Snapshot | None = None,
    prediction_type: str = "epsilon",
) -> Bench:
    """Encode into a cache that benches share, as preparation does."""
    snapshot = with_masks(snapshot, settings.mask_folder)
    data = make_training_set(snapshot, settings, resolution=settings.resolution or RESOLUTION, prior=prior)
    latents = LatentCache(cache / "latents", digest_of(components.vae), "cpu")
    texts = TextCache(cache / "embeddings", digest_of(components.text_encoder), "cpu")
    masks = MaskCache(cache / "masks", vae_scale_factor(components))
    items = (*data.items, *data.held_out)
    for item in items:
        masks.fill(item)
    for item in latents.missing(items):
        latents.encode(item, components)
    for caption in texts.missing(["", *captions_of(items)]):
        texts.encode(caption, components)
    noise_scheduler = DDPMScheduler.from_config(components.pipeline.scheduler.config, prediction_type=prediction_type)
    maker = BatchMaker(
        data,
        settings,
        components=components,
        noise_scheduler=noise_scheduler,
        latents=latents,
        texts=texts,
        masks=masks,
        device=CPU,
    )
    noise_loss = NoiseLoss(settings, noise_scheduler)
    return Bench(settings, components, data, latents, texts, noise_scheduler, maker, noise_loss)


def make_adapters(bench: Bench, *, seed: int = 3) -> Adapters:
    """Layers with the weights of a seed, still without effect."""
    torch.manual_seed(seed)
    return Adapters(bench.components, bench.settings)


def give_effect(adapters: Adapters, *, strength: float = 0.05, seed: int = 9) -> None:
    """Let every up weight, and with DoRA every length, be another than it was."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapters.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "lora_B" in name:
                parameter.copy_(strength * noise)
            elif "magnitude" in name:
                parameter.mul_(1 + strength * noise)


def make_loop(bench: Bench, adapters: Adapters, processes: Processes, folder: Path) -> TrainingLoop:
    """A loop that trains, and neither reports nor writes anything: it has no watch."""
    settings = bench.settings
    means = RunningMean(adapters.parameters(), settings.ema_decay) if settings.use_ema else None
    optimizer = make_optimizer(adapters, settings)
    schedule = make_schedule(optimizer, settings)
    denoiser = Denoiser(bench.components, train_text_encoder=settings.train_text_encoder)
    model, prepared_optimizer = processes.accelerator.prepare(denoiser, optimizer)
    position = Position(step=0, batches_done=0, dataset_digest="d", num_processes=1, settings=settings)
    state = TrainingState(position, adapters, prepared_optimizer, schedule, means)
    return TrainingLoop(
        run=RunFolder(folder),
        steps=OptimizerSteps(settings, state, model, bench.maker, bench.noise_loss, processes),
        denoiser=denoiser,
        memory=MemoryWatch(CPU, lambda event: None),
        watch=None,
        stop_signal=lambda: False,
    )


def weights_before_and_after(loop: TrainingLoop) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """What learns, before the loop has trained and after it."""
    before = parameters_of(loop.state.adapters)
    assert loop.train() == "finished"
    return before, parameters_of(loop.state.adapters)


def parameters_of(adapters: Adapters) -> dict[str, torch.Tensor]:
    """A copy of everything that learns, by its name."""
    return {name: parameter.detach().clone() for name, parameter in adapters.named_parameters()}


def prediction_of(components: Components) -> torch.Tensor:
    """What the model makes of fixed words and fixed noise: it depends on every layer of U-Net and text encoder."""
    tokens = torch.arange(77)[None] % 600
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    components.unet.eval()
    components.text_encoder.eval()
    with torch.no_grad():
        prediction: torch.Tensor = components.unet(
            noise, torch.tensor([400]), components.text_encoder(tokens)[0], return_dict=False
        )[0]
    return prediction


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all weights."""
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}
