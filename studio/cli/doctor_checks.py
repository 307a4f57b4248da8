"""What the doctor looks at with the help of other packages; `studio.cli.doctor` has made sure that they are there."""

import importlib
import json
import platform
import shutil
import tempfile
from pathlib import Path

import psutil
from huggingface_hub import constants, get_session, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError, safe_open

from studio.cli.doctor import Finding, note, ok, problem, release
from studio.core.errors import ModelError, WeightsFileError
from studio.core.files import assert_regular, read_text
from studio.core.language import N_, _, said
from studio.core.paths import UserData, assets_folder, typed_path
from studio.core.results import DeviceCheck
from studio.core.settings import SHIPPED_MODEL, ModelSettings
from studio.core.text import GIB, gigabytes
from studio.engine.hub import MOVED_MODELS, looks_like_hub_name, network_fault, split_revision
from studio.jobs.device_lock import DeviceLock, DeviceOwner
from studio.loras.weights_file import read_header

OLDEST_MACOS = 14
MODEL_CONFIGURATIONS = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer_config.json",
    "text_encoder/config.json",
    "unet/config.json",
    "vae/config.json",
)
MODEL_WEIGHTS = (
    "text_encoder/model.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
)
# Process and model in float32, as measured by `python -m studio bench --only memory`.
SHIPPED_MODEL_BYTES = 1 * GIB
LARGE_MODEL_LEAST_BYTES, LARGE_MODEL_BYTES = 4 * GIB, 8 * GIB
DISK_LEAST_BYTES, DISK_BYTES = 1 * GIB, 10 * GIB
ANSWER_SECONDS = 3.0


def check_all(model: ModelSettings, *, user_data: UserData, cpu_only: bool) -> tuple[Finding, ...]:
    """Look at everything else. No weights are loaded, nothing is downloaded, nothing stays behind."""
    memory = psutil.virtual_memory()  # before torch is imported: it takes some itself
    shipped, folder = model.model == SHIPPED_MODEL, existing_folder(user_data.root)
    connection = check_connection(constants.ENDPOINT, offline_mode=constants.HF_HUB_OFFLINE)
    return (
        *engine_findings(user_data, cpu_only=cpu_only),
        judge_memory(available_bytes=memory.available, total_bytes=memory.total, shipped_model=shipped),
        judge_disk(shutil.disk_usage(folder).free, folder=folder),
        check_writable(folder),
        check_model_files(N_("Shipped model"), assets_folder() / SHIPPED_MODEL),
        *(() if shipped else (check_model(model.model, online=connection.state == "ok"),)),
        connection,
        judge_device_lock(device_holder(user_data.device_lock)),
    )


def engine_findings(user_data: UserData, *, cpu_only: bool) -> tuple[Finding, ...]:
    """The device, its precision, its system, and what the device check said of it; first of all, that torch works."""
    try:
        from studio.engine.device import decide_precision, device_name, pick_device, processor_name
        from studio.engine.device_policy import kept_check
    except (ImportError, OSError, RuntimeError) as error:  # a damaged torch or diffusers fails in any of these ways
        seen = _("the engine's libraries cannot be imported ({kind}: {error})", kind=type(error).__name__, error=error)
        advice = _("Delete the environment (.venv) and run launch.py, which sets it up again.")
        return (problem(N_("Device"), seen, advice),)
    device = pick_device(cpu_only=cpu_only)
    name = device_name(device)
    if device.type == "cpu":
        name = _("CPU, {processor}, {num} threads", processor=processor_name(), num=psutil.cpu_count())
    raised = decide_precision(device.type, "float16").raised
    precision = said(decide_precision(device.type).reason)
    return (
        judge_device(device.type, name, cpu_only=cpu_only),
        ok(
            N_("Precision"),
            _("{precision} A request for float16 is raised to float32.", precision=precision) if raised else precision,
        ),
        *((judge_macos(platform.mac_ver()[0]),) if device.type == "mps" else ()),
        judge_device_check(device.type, kept_check(user_data.device_checks, device)),
    )


def judge_device(device_type: str, name: str, *, cpu_only: bool) -> Finding:
    """A CPU will do, but slowly, and one may not have meant it."""
    if device_type != "cpu":
        return ok(N_("Device"), f"{name} ({device_type})")
    if cpu_only:
        return ok(N_("Device"), _("{name}, because of --cpu", name=name))
    advice = _("The shipped model is quick on it; Stable Diffusion 1.5 takes minutes for an image.")
    return note(N_("Device"), _("{name}; torch finds no GPU", name=name), advice)


def judge_macos(found: str) -> Finding:
    """The system on an Apple GPU: Metal's faults were fixed release by release."""
    if release(found) >= (OLDEST_MACOS,):
        return ok("macOS", found)
    advice = _(
        "Update to macOS {oldest} or newer, or run the device check on the Inference tab before real work.",
        oldest=OLDEST_MACOS,
    )
    return note("macOS", _("{found}, whose Metal has known faults", found=found), advice)


def judge_device_check(device_type: str, kept: DeviceCheck | None) -> Finding:
    """What was kept of the comparison with the CPU."""
    name = N_("Device check")
    if device_type == "cpu":
        return ok(name, _("not needed: the CPU is what others are compared with"))
    if kept is None:
        advice = _("It runs when a model is first loaded, or with `python -m studio smoke`.")
        return note(name, _("not run yet with this system and torch"), advice)
    if kept.passed:
        return ok(name, kept.sentence)
    return problem(name, kept.fault, kept.advice)


def judge_memory(*, available_bytes: int, total_bytes: int, shipped_model: bool) -> Finding:
    """Is there room for the model that was asked for, and for Stable Diffusion 1.5?"""
    seen = _("{free} of {total} are available", free=gigabytes(available_bytes), total=gigabytes(total_bytes))
    needed = _("the shipped model needs 1 GB, Stable Diffusion 1.5 in float32 6 to 8 GB")
    if available_bytes < (SHIPPED_MODEL_BYTES if shipped_model else LARGE_MODEL_LEAST_BYTES):
        advice = _("Close other programs: the system may kill the studio while it makes an image.")
        return problem(N_("Memory"), f"{seen}; {needed}", advice)
    if available_bytes < LARGE_MODEL_BYTES:
        advice = _("Close other programs before you load a model of Stable Diffusion 1.5's size.")
        return note(N_("Memory"), f"{seen}; {needed}", advice)
    return ok(N_("Memory"), seen)


def existing_folder(path: Path) -> Path:
    """The path, or the nearest place above it that there is: where it would be made."""
    try:
        return path if path.exists() or path == path.parent else existing_folder(path.parent)
    except PermissionError:  # even looking into the folder above is forbidden
        return existing_folder(path.parent)


def judge_disk(free_bytes: int, *, folder: Path) -> Finding:
    """Room for images, models and runs."""
    seen = _("{size} are free in {folder}", size=gigabytes(free_bytes), folder=folder)
    if free_bytes < DISK_LEAST_BYTES:
        advice = _("Free some space, or choose another place with --user-data: images could not be saved.")
        return problem(N_("Disk"), seen, advice)
    if free_bytes < DISK_BYTES:
        advice = _("Enough for images; a downloaded model takes 4 GB, and a training run some GB more.")
        return note(N_("Disk"), seen, advice)
    return ok(N_("Disk"), seen)


def check_writable(folder: Path) -> Finding:
    """Write a small file there, and remove it."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
            file.write(b"doctor")
            file.flush()
    except OSError as error:
        advice = _("Make it writable, or choose another place with --user-data.")
        return problem(
            N_("User data"), _("{folder} cannot be written ({reason})", folder=folder, reason=error.strerror), advice
        )
    return ok(N_("User data"), _("{folder} can be written", folder=folder))


def check_model_files(name: str, folder: Path) -> Finding:
    """Every file that a model needs: there, and readable so far as this can be told without loading weights."""
    configurations = {*(folder / file for file in MODEL_CONFIGURATIONS), *folder.glob("*/*.json")}
    faults = [fault for path in sorted(configurations) if (fault := _configuration_fault(path))]
    if not any((folder / "tokenizer" / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        faults.append(_("tokenizer/tokenizer.json is missing"))
    faults += [fault for file in MODEL_WEIGHTS if (fault := _weights_fault(folder / file))]
    if not faults:
        return ok(name, _("{model}, its files are there and readable", model=folder.name))
    return problem(name, "; ".join(faults), _("Copy or download {folder} again.", folder=folder))


def _configuration_fault(path: Path) -> str:
    """What is wrong with a JSON file; empty where nothing is."""
    try:
        json.loads(read_text(path))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        return _("{file} cannot be read ({reason})", file=_with_folder(path), reason=reason)
    return ""


def _weights_fault(path: Path) -> str:
    """What is wrong with a .safetensors file's header or length; empty where nothing is."""
    try:
        assert_regular(path)
        with safe_open(path, framework="numpy") as file:
            return "" if file.keys() else _("{file} holds no weights", file=_with_folder(path))
    except (OSError, SafetensorError) as error:
        return _("{file} cannot be read ({reason})", file=_with_folder(path), reason=error)


def _with_folder(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def check_model(name: str, *, online: bool) -> Finding:
    """A model that is not the shipped one: a folder, a file, or a Hugging Face id that is here or can be downloaded."""
    path = typed_path(name)
    if path.is_dir():
        return check_model_files(N_("Model"), path.resolve())
    if path.is_file():
        return _check_single_file(path)
    advice = _(
        "Give the folder that holds model_index.json, a .safetensors file, a Hugging Face id, or {shipped}.",
        shipped=SHIPPED_MODEL,
    )
    missing = problem(N_("Model"), _("there is no folder or file {name}", name=name), advice)
    if not looks_like_hub_name(name):
        return missing
    try:
        repository, revision = split_revision(name)
        for place in dict.fromkeys((repository, MOVED_MODELS.get(repository, repository))):
            index = try_to_load_from_cache(place, "model_index.json", revision=revision)
            if isinstance(index, str):
                return check_model_files(N_("Model"), Path(index).parent)
    except (HFValidationError, ModelError):
        return missing
    if online:
        advice = _("It is downloaded when it is first used: about 4 GB.")
        return note(N_("Model"), _("{name} is not on this machine", name=name), advice)
    advice = _("Go online once to download it, or give the folder of a copy.")
    return problem(
        N_("Model"), _("{name} is not on this machine, and Hugging Face cannot be reached", name=name), advice
    )


def _check_single_file(path: Path) -> Finding:
    try:
        header = read_header(path)
    except WeightsFileError as error:
        return problem(N_("Model"), str(error), _("Choose another file, or copy it again."))
    return ok(
        N_("Model"),
        _(
            "{name}: {num_tensors:,} tensors, {size}",
            name=path.name,
            num_tensors=len(header.tensors),
            size=gigabytes(header.size_bytes),
        ),
    )


def check_connection(endpoint: str, *, offline_mode: bool) -> Finding:
    """Ask the Hub for a sign of life, the way downloads would. Being offline is no problem, only good to know."""
    advice = _("The shipped model and models that are already downloaded work; new downloads do not.")
    if offline_mode:
        return note(N_("Connection"), _("offline, because HF_HUB_OFFLINE is set"), advice)
    if fault := network_fault():
        correct = _("Correct or unset it.")
        return note(N_("Connection"), _("offline: {fault}", fault=fault), f"{correct} {advice}")
    session = get_session()
    # httpx or httpx2, as huggingface_hub's version has it: its errors share no base with others.
    library = importlib.import_module(type(session).__module__.partition(".")[0])
    try:
        answer = session.head(endpoint, timeout=ANSWER_SECONDS)
    except (library.HTTPError, library.InvalidURL, OSError) as error:
        return note(
            N_("Connection"),
            _("offline: {endpoint} does not answer ({kind})", endpoint=endpoint, kind=type(error).__name__),
            advice,
        )
    if answer.status_code >= 500:
        return note(
            N_("Connection"),
            _("{endpoint} returned an error (status {status})", endpoint=endpoint, status=answer.status_code),
            advice,
        )
    return ok(N_("Connection"), _("online: {endpoint} answers", endpoint=endpoint))


def device_holder(path: Path) -> DeviceOwner | None:
    """The process that holds the device's lock now; None where nobody does."""
    if not path.exists():
        return None
    lock = DeviceLock(path)
    try:
        if not lock.acquire("python -m studio doctor"):
            return lock.owner()
    except OSError:  # not ours to write: check_writable tells
        return None
    lock.release()
    return None


def judge_device_lock(holder: DeviceOwner | None) -> Finding:
    """Only one process may compute at a time."""
    if holder is None:
        return ok(N_("Device lock"), _("free"))
    advice = _("Other commands refuse to start, and another page waits, until it ends.")
    return note(N_("Device lock"), _("held by {holder}", holder=holder), advice)
