"""Does this device compute what the CPU computes? Operations at their real sizes, then the shipped model's passes.

What it finds has consequences: the fastest way to compute attention that is right is used, what the studio can do
without is avoided, and a device that is wrong elsewhere is refused (`DeviceCheck`).
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

import torch

from studio.core.errors import is_out_of_memory
from studio.core.language import N_, _
from studio.core.results import CHECK_FORMAT, AttentionTrial, DeviceCheck, DeviceDifference
from studio.core.settings import SHIPPED_MODEL, GenerationSettings
from studio.core.system import operating_system
from studio.engine.attention import MPS_MAX_SCORES, MPS_SCORES, AttentionPlan, attention_plan, set_attention
from studio.engine.denoise import decode, denoise, encode_prompts, first_latents, make_scheduler, set_timesteps
from studio.engine.device import assert_precision, device_name, full_float32, release_memory, synchronize
from studio.engine.device_operations import Compute, DeviceOperation, Tensors, attention_of, device_operations
from studio.engine.memory import MemoryMeter
from studio.engine.model_files import find_model
from studio.engine.models import Components, load_components, move_components

logger = logging.getLogger(__name__)

# Float32 on another device differs by rounding, about 1e-5. The faults that were reported for MPS (recycled memory,
# wrong gradients) are off by whole numbers or NaN.
LIMIT = 1e-2
OPERATION_LIMIT = 1e-3
# Guided a little only: at the usual 7.5 four steps make a hundred times as much of each rounding.
SAMPLE = GenerationSettings(prompt="black casual shoes", num_inference_steps=4, guidance_scale=2, seed=0)
WIDE_ATTENTION = N_("attention, heads 80 wide")
LATENTS_SIDE = 64  # of Stable Diffusion 1.5's own 512 × 512
Told = Callable[[str], None]


def attention_candidates(device: torch.device) -> tuple[AttentionPlan, ...]:
    """The ways to compute attention that are tried on a device."""
    if device.type != "mps":
        return (AttentionPlan(),)
    chunks = AttentionPlan(max_scores=MPS_MAX_SCORES, contiguous=True)
    sizes = tuple(replace(chunks, max_scores=scores) for scores in (2**24, MPS_SCORES, MPS_MAX_SCORES))
    # Widths for which Metal has fused kernels, it is said: then nothing of the scores is stored.
    return (*sizes, *(replace(chunks, head_width=width) for width in (64, 96, 128)))


def check_device(device: torch.device, *, on_part: Told = lambda _part: None) -> DeviceCheck:
    """Compare a device with the CPU in float32; on the CPU itself there is nothing to compare.

    Args:
        on_part: told of each part before it is computed.

    Raises:
        ModelError: where the shipped model cannot be read.
        RuntimeError, MemoryError: where there is not the memory for it.
    """
    return _result(device) if device.type == "cpu" else compare_device(device, side=LATENTS_SIDE, on_part=on_part)


def compare_device(device: torch.device, *, side: int, on_part: Told = lambda _part: None) -> DeviceCheck:
    """The comparison itself.

    Args:
        side: of the latents whose sizes are tried; smaller ones do not show every fault.
    """
    with full_float32():
        trials = try_attention(device, attention_candidates(device), tokens=side * side, on_part=on_part)
        plan = plan_of(trials)
        operations = list(device_operations(side=side))
        if plan is not None:
            wide = attention_of(plan, tokens=(side // 2) ** 2, width=80)
            operations.insert(0, DeviceOperation(WIDE_ATTENTION, wide))
        differences = check_operations(device, operations, on_part=on_part)
        if plan is not None:
            on_part(_("the shipped model's passes"))
            differences += _check_model(device, plan)
    release_memory(device)
    return _result(device, differences, trials)


def try_attention(
    device: torch.device,
    candidates: Sequence[AttentionPlan],
    *,
    tokens: int,
    compute: Callable[..., Compute] = attention_of,
    on_part: Told = lambda _part: None,
) -> tuple[AttentionTrial, ...]:
    """Self-attention, 2 × 8 × tokens × 40, by each candidate: how far from the CPU's, how fast, how much memory.

    Args:
        compute: gives the computation of a plan.

    Raises:
        RuntimeError: where there is not the memory for any that is right: what the device is, is not known then.
    """
    reference = compute(AttentionPlan(), tokens=tokens, width=40)(torch.device("cpu"))
    trials: list[AttentionTrial] = []
    no_memory: RuntimeError | None = None
    for number, plan in enumerate(candidates, start=1):
        on_part(_("attention, way {number} of {num_candidates}", number=number, num_candidates=len(candidates)))
        try:
            difference, seconds, num_bytes = _measured(device, compute(plan, tokens=tokens, width=40), reference)
        except RuntimeError as error:  # another way may take less
            no_memory, difference, seconds, num_bytes = error.with_traceback(None), float("inf"), float("inf"), None
            release_memory(device)
        trials.append(
            AttentionTrial(
                max_scores=plan.max_scores,
                contiguous=plan.contiguous,
                head_width=plan.head_width,
                difference=difference,
                limit=OPERATION_LIMIT,
                seconds=seconds,
                memory_bytes=num_bytes,
            )
        )
    if no_memory is not None and plan_of(trials) is None:
        raise no_memory
    return tuple(trials)


def plan_of(trials: Sequence[AttentionTrial]) -> AttentionPlan | None:
    """The fastest of those that are right; None where none is."""
    chosen = DeviceCheck.chosen_of(trials)
    if chosen is None:
        return None
    return AttentionPlan(chosen.max_scores, contiguous=chosen.contiguous, head_width=chosen.head_width)


def check_operations(
    device: torch.device, operations: Sequence[DeviceOperation], *, on_part: Told = lambda _part: None
) -> tuple[DeviceDifference, ...]:
    """Each operation on the device beside its reference."""
    found = []
    for operation in operations:
        on_part(_(operation.name))
        reference = operation.reference(device) if operation.reference else operation.compute(torch.device("cpu"))
        difference, seconds, num_bytes = _measured(device, operation.compute, reference)
        found.append(
            DeviceDifference(
                part=operation.name,
                difference=difference,
                limit=OPERATION_LIMIT,
                seconds=seconds,
                memory_bytes=num_bytes,
                consequence=operation.consequence,
            )
        )
    return tuple(found)


def _measured(device: torch.device, compute: Compute, reference: Tensors) -> tuple[float, float, int | None]:
    """(largest difference, seconds of a second go, bytes of the device at their peak)."""
    try:
        with MemoryMeter(device) as meter:
            difference = max(_difference(own, wanted) for own, wanted in zip(compute(device), reference, strict=True))
            synchronize(device)
            meter.sample_accelerator()
            started = time.perf_counter()
            compute(device)
            synchronize(device)
    except RuntimeError as error:  # the device has no such operation: as good as wrong
        if is_out_of_memory(error):  # says nothing of how it computes
            raise
        logger.warning("The device check found an operation that fails on %s: %s", device, error)
        return float("inf"), float("inf"), None
    return difference, time.perf_counter() - started, meter.use.peak_accelerator_bytes


def _check_model(device: torch.device, plan: AttentionPlan) -> tuple[DeviceDifference, ...]:
    model = find_model(SHIPPED_MODEL)
    reference, candidate = load_components(model, "float32"), load_components(model, "float32")
    move_components(candidate, device)
    assert_precision(candidate.modules(), "float32")
    set_attention(reference, attention_plan(torch.device("cpu")))
    set_attention(candidate, plan)
    return compare(candidate, reference)


def compare(candidate: Components, reference: Components) -> tuple[DeviceDifference, ...]:
    """The largest difference of a few UNet steps, a VAE decode and a backward pass, relative to the reference."""
    parts = {N_("UNet steps"): _latents, N_("VAE decode"): _decoded, N_("backward pass"): _gradients}
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
        *__, last = denoise(components.unet, scheduler, noise, embeddings, settings=SAMPLE, generator=generator)
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
    candidate, reference = candidate.cpu(), reference.cpu()
    if not bool(torch.isfinite(candidate).all()):
        return float("inf")
    return float((candidate - reference).abs().max() / reference.abs().max())


def _result(
    device: torch.device,
    differences: tuple[DeviceDifference, ...] = (),
    attention: tuple[AttentionTrial, ...] = (),
) -> DeviceCheck:
    return DeviceCheck(
        device=str(device),
        device_name=device_name(device),
        operating_system=operating_system(),
        torch_version=torch.__version__,
        checked_at=datetime.now().astimezone(),
        differences=differences,
        attention=attention,
        format=CHECK_FORMAT,
    )
