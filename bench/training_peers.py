"""Who trains, and how each is started: ours, a plain loop, diffusers' script, kohya's script. One command for each."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from bench.real_size_model import REAL_SIZE_PIXELS
from studio.core.errors import StudioError
from studio.core.paths import CHECKOUT_FOLDER, assets_folder
from studio.training.settings import TargetName

BATCH, RANK = 2, 8
STEPS = 3  # the first warms up and is not counted
ACCELERATOR_STEPS = 25  # a step takes a fraction of a second there, and the first few warm up
PICTURES = 4
STEP_TIMES = Path(__file__).with_name("step_times.py")


@dataclass(frozen=True)
class StepFacts:
    """Of each step but the first seconds and CPU seconds; the peak in bytes: the process's, or on CUDA the GPU's."""

    step_seconds: tuple[float, ...]
    step_cpu_seconds: tuple[float, ...]
    peak_bytes: int

    @property
    def best_seconds(self) -> float:
        return min(self.step_seconds)

    @property
    def best_cpu_seconds(self) -> float:
        return min(self.step_cpu_seconds)


@dataclass(frozen=True)
class Workplace:
    """What all sides read: the model, the images in each one's layout, and a folder to write in."""

    model: Path
    folder: Path
    device_type: str
    pixels: int = REAL_SIZE_PIXELS

    @property
    def steps(self) -> int:
        return STEPS if self.device_type == "cpu" else ACCELERATOR_STEPS

    @property
    def pictures(self) -> Path:
        return self.folder / "kohya" / "1_shoe"


def write_pictures(folder: Path, *, pixels: int = REAL_SIZE_PIXELS) -> None:
    """Four square images: kohya's folder with captions beside them, and diffusers' imagefolder."""
    kohya, plain = folder / "kohya" / "1_shoe", folder / "imagefolder"
    kohya.mkdir(parents=True)
    plain.mkdir()
    lines = []
    for number in range(PICTURES):
        caption = f"red canvas sneakers, number {number}"
        noise = Image.effect_noise((pixels, pixels), 60).convert("RGB")
        noise.save(kohya / f"{number}.png")
        (kohya / f"{number}.txt").write_text(caption, encoding="utf-8")
        shutil.copyfile(kohya / f"{number}.png", plain / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", "text": caption}))
    (plain / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def run_ours(place: Workplace, *, targets: TargetName, checkpointing: str, percent: int = 100) -> StepFacts:
    """`studio train` itself, in a user_data of its own, with everything that it writes and checks.

    Args:
        percent: of the activations' memory to free, where `checkpointing` is "part".
    """
    with tempfile.TemporaryDirectory(dir=place.folder) as user_data:
        values = {
            "targets": targets,
            "gradient_checkpointing": checkpointing,
            "gradient_checkpointing_percent": percent,
            "max_train_steps": place.steps,
            "train_batch_size": BATCH,
            "gradient_accumulation_steps": 1,
            "rank": RANK,
            "resolution": place.pixels,
            "num_validation_images": 0,
            "held_out_percent": 0,
            "held_out_steps": 1000,
            "checkpointing_steps": 1000,
        }
        arguments = ["train", "--dataset", str(place.pictures), "--model", str(place.model), "--user-data", user_data]
        arguments += [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
        arguments += ["--cpu"] if place.device_type == "cpu" else []
        return _timed([sys.executable], CHECKOUT_FOLDER / "studio" / "__main__.py", arguments, place)


def run_plain(place: Workplace, *, targets: TargetName, checkpointing: bool, cached: bool) -> StepFacts:
    """The plain loop of this folder."""
    arguments = ["--model", str(place.model), "--pictures", str(place.pictures), "--targets", targets]
    arguments += ["--resolution", str(place.pixels), "--batch", str(BATCH), "--steps", str(place.steps)]
    arguments += ["--rank", str(RANK), "--device", place.device_type]
    arguments += ["--checkpointing"] if checkpointing else []
    arguments += ["--cached"] if cached else []
    return _timed([sys.executable], Path(__file__).with_name("plain_training.py"), arguments, place)


def run_diffusers(place: Workplace, *, checkout: Path, python: Path) -> StepFacts:
    """diffusers' `train_text_to_image_lora.py`: attention alone, as it is, with gradient checkpointing."""
    with tempfile.TemporaryDirectory(dir=place.folder) as output:
        arguments = ["--pretrained_model_name_or_path", str(place.model)]
        arguments += ["--train_data_dir", str(place.folder / "imagefolder"), "--caption_column", "text"]
        arguments += ["--resolution", str(place.pixels), "--center_crop", "--train_batch_size", str(BATCH)]
        arguments += ["--gradient_checkpointing", "--max_train_steps", str(place.steps), "--learning_rate", "1e-4"]
        arguments += ["--lr_scheduler", "constant", "--lr_warmup_steps", "0", "--mixed_precision", "no"]
        arguments += ["--rank", str(RANK), "--seed", "0", "--dataloader_num_workers", "0", "--output_dir", output]
        script = checkout / "examples" / "text_to_image" / "train_text_to_image_lora.py"
        return _timed([str(python)], script, arguments, place)


def run_kohya(place: Workplace, *, checkout: Path, python: Path) -> StepFacts:
    """kohya's `train_network.py` with its latent cache: 192 layers, with gradient checkpointing."""
    with tempfile.TemporaryDirectory(dir=place.folder) as output:
        tokenizers = Path(output) / "tokenizers"
        shutil.copytree(assets_folder() / "sd15" / "tokenizer", tokenizers / "openai_clip-vit-large-patch14")
        arguments = ["--pretrained_model_name_or_path", str(place.model), "--tokenizer_cache_dir", str(tokenizers)]
        arguments += ["--train_data_dir", str(place.folder / "kohya"), "--caption_extension", ".txt"]
        arguments += ["--resolution", f"{place.pixels},{place.pixels}", "--train_batch_size", str(BATCH)]
        arguments += ["--max_train_steps", str(place.steps), "--network_module", "networks.lora"]
        arguments += ["--network_dim", str(RANK), "--network_alpha", str(RANK), "--network_train_unet_only"]
        arguments += ["--cache_latents", "--gradient_checkpointing", "--sdpa", "--mixed_precision", "no"]
        arguments += ["--save_precision", "float", "--optimizer_type", "AdamW", "--learning_rate", "1e-4"]
        arguments += ["--max_data_loader_n_workers", "0", "--seed", "0", "--save_model_as", "safetensors"]
        arguments += ["--output_dir", output, "--output_name", "peer"]
        return _timed([str(python)], checkout / "train_network.py", arguments, place)


def _timed(python: Sequence[str], script: Path, arguments: Sequence[str], place: Workplace) -> StepFacts:
    """Run a script under `step_times.py`, offline.

    Raises:
        StudioError: where it fails; the end of what it said is in the message.
    """
    output = place.folder / "step-times.json"
    output.unlink(missing_ok=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}
    done = subprocess.run(
        [*python, str(STEP_TIMES), str(output), str(script), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd=script.parent if script.name != "__main__.py" else None,
        check=False,
    )
    if done.returncode or not output.is_file():
        raise StudioError(f"{script.name} failed (exit code {done.returncode}): {done.stderr[-2000:]}")
    found = json.loads(output.read_text(encoding="utf-8"))
    if not found["step_seconds"]:
        raise StudioError(f"{script.name} told of no step: {done.stderr[-2000:]}")
    peak = found["peak_accelerator_bytes"] or found["peak_process_bytes"]
    return StepFacts(tuple(found["step_seconds"]), tuple(found["step_cpu_seconds"]), int(peak))
