"""Does this device compute what the CPU computes? Forward and backward, on the shipped model, in seconds."""

import logging
from datetime import datetime
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError

from studio.engine.denoise import decode, denoise, first_latents, set_timesteps
from studio.engine.device import device_name
from studio.engine.models import Components, find_model, load_components, move_components
from studio.engine.precision import assert_precision
from studio.engine.schedulers import make_scheduler
from studio.engine.text import encode_prompts
from studio.files import write_atomically
from studio.machine import operating_system
from studio.results import DeviceCheck, DeviceDifference
from studio.settings import SHIPPED_MODEL, GenerationSettings

logger = logging.getLogger(__name__)

# Float32 on another device differs by rounding, about 1e-5 (1e-3 where convolutions use TF32). The faults that
# were reported for MPS (recycled memory, wrong gradients) are off by whole numbers or NaN.
LIMIT = 1e-2
# Guided a little only: at the usual 7.5 four steps make a hundred times as much of each rounding, so that TF32 alone
# was off by 0.6 on a GPU that is sound.
SAMPLE = GenerationSettings(prompt="black casual shoes", num_inference_steps=4, guidance_scale=2, seed=0)
_CHECKS = TypeAdapter(tuple[DeviceCheck, ...])


def check_device(device: torch.device) -> DeviceCheck:
    """Compare a device with the CPU in float32; on the CPU itself there is nothing to compare.

    Raises:
        ModelError: where the shipped model cannot be read.
    """
    if device.type == "cpu":
        return _result(device, ())
    model = find_model(SHIPPED_MODEL)
    reference, candidate = load_components(model, "float32"), load_components(model, "float32")
    move_components(candidate, device)
    assert_precision(candidate.modules(), "float32")
    return _result(device, compare(candidate, reference))


def compare(candidate: Components, reference: Components) -> tuple[DeviceDifference, ...]:
    """The largest difference of a few UNet steps, a VAE decode and a backward pass, relative to the reference."""
    parts = {"UNet steps": _latents, "VAE decode": _decoded, "backward pass": _gradients}
    return tuple(
        DeviceDifference(part=name, difference=_difference(run(candidate), run(reference)), limit=LIMIT)
        for name, run in parts.items()
    )


def _latents(components: Components) -> torch.Tensor:
    generator = torch.Generator("cpu").manual_seed(SAMPLE.seed)
    with torch.inference_mode():
        embeddings = encode_prompts(components, ["", SAMPLE.prompt])
        noise = first_latents(components, generator, width=128, height=128)
        scheduler = make_scheduler(SAMPLE.scheduler, components.pipeline.scheduler)
        set_timesteps(scheduler, SAMPLE, components.unet.device)
        *_, last = denoise(components.unet, scheduler, noise, embeddings, settings=SAMPLE, generator=generator)
    return last.latents_BCHW


def _decoded(components: Components) -> torch.Tensor:
    generator = torch.Generator("cpu").manual_seed(SAMPLE.seed)
    with torch.inference_mode():
        return decode(components, first_latents(components, generator, width=128, height=128))


def _gradients(components: Components) -> torch.Tensor:
    """Gradients of the UNet's first attention queries, its first and its last convolution, as one vector."""
    unet, generator = components.unet, torch.Generator("cpu").manual_seed(SAMPLE.seed)
    query = next(p for name, p in unet.named_parameters() if name.endswith("to_q.weight"))
    parameters = [query, unet.conv_in.weight, unet.conv_out.weight]
    noise = first_latents(components, generator, width=128, height=128)
    embeddings = encode_prompts(components, [SAMPLE.prompt])
    for parameter in parameters:
        parameter.requires_grad_(True)
    timestep = torch.tensor(500, device=unet.device)
    prediction = unet(noise, timestep, encoder_hidden_states=embeddings, return_dict=False)[0]
    loss = torch.nn.functional.mse_loss(prediction, noise)
    gradients = torch.autograd.grad(loss, parameters)
    for parameter in parameters:
        parameter.requires_grad_(False)
    return torch.cat([gradient.flatten() for gradient in gradients])


def _difference(candidate: torch.Tensor, reference: torch.Tensor) -> float:
    """Largest |candidate - reference| over largest |reference|; infinite where the candidate is not finite."""
    candidate = candidate.cpu()
    if not bool(torch.isfinite(candidate).all()):
        return float("inf")
    return float((candidate - reference).abs().max() / reference.abs().max())


def _result(device: torch.device, differences: tuple[DeviceDifference, ...]) -> DeviceCheck:
    return DeviceCheck(
        device=str(device),
        device_name=device_name(device),
        operating_system=operating_system(),
        torch_version=torch.__version__,
        checked_at=datetime.now().astimezone(),
        differences=differences,
    )


def keep_check(path: Path, check: DeviceCheck) -> None:
    """Keep a result; an older one of the same machine, system and torch is replaced."""
    others = tuple(kept for kept in _kept_checks(path) if _identity(kept) != _identity(check))
    write_atomically(path, _CHECKS.dump_json((*others, check), indent=2))


def kept_check(path: Path, device: torch.device) -> DeviceCheck | None:
    """The kept result for this machine, operating system and torch version, if there is one."""
    wanted = _identity(_result(device, ()))
    return next((kept for kept in _kept_checks(path) if _identity(kept) == wanted), None)


def _identity(check: DeviceCheck) -> tuple[str, str, str, str]:
    return check.device, check.device_name, check.operating_system, check.torch_version


def _kept_checks(path: Path) -> tuple[DeviceCheck, ...]:
    if not path.is_file():
        return ()
    try:
        return _CHECKS.validate_json(path.read_bytes())
    except ValidationError as error:
        logger.warning("The kept device checks in %s cannot be read and are made anew: %s", path, error)
        return ()
