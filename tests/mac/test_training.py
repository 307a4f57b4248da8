"""Trainings on a Mac, whole runs of two steps in several set-ups: they learn what they learn on the CPU."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from studio.core.paths import UserData
from studio.training.events import FinishedEvent, HeldOutEvent, SampleEvent, read_events
from studio.training.folder import RunFolder, read_plan
from studio.training.torch.run import train_run
from tests.faults.conftest import Place
from tests.mac.simulated_mac import NAME, simulated_mac
from tests.training.torch.parts import save_pictures

SIZES = ((72, 64), (64, 72)) * 2
QUIET = {
    "max_train_steps": 2,
    "gradient_accumulation_steps": 1,
    "lora_dropout": 0.0,
    "checkpointing_steps": 2,
    "held_out_steps": 100,  # never
}


def trained(place: Place, *, name: str, cpu: bool, **changes: object) -> RunFolder:
    run = place.begin(**{**QUIET, "name": name, "cpu": cpu, **changes})
    assert train_run(run, place.user_data) == "finished"
    return run


def weights_of(run: RunFolder) -> dict[str, torch.Tensor]:
    return load_file(run.checkpoints / "step-000002" / "lora.safetensors")


def assert_learned_the_same(mac: RunFolder, cpu: RunFolder) -> None:
    """Up to rounding, which Adam's first steps make larger: they divide by the gradient's own size."""
    found, expected = weights_of(mac), weights_of(cpu)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=1e-3, atol=1e-5), name


@pytest.fixture(scope="module")
def shared(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A dataset that is looked through once, and encoded once: by the first training, on the Mac."""
    folder = tmp_path_factory.mktemp("mac-training")
    dataset = save_pictures(folder / "shoes", SIZES)
    return Place(UserData(folder / "user_data"), dataset, tiny_model)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"train_text_encoder": True, "gradient_checkpointing": "on"},
        {"use_dora": True, "gradient_checkpointing": "on"},
        {"snr_gamma": 5.0, "use_ema": True, "horizontal_flip": True, "shuffle_caption": True, "crop": "random"},
        {"optimizer": "Prodigy", "learning_rate": 1.0, "use_rslora": True},
    ],
    ids=lambda changes: ", ".join(changes) or "plain",
)
def test_a_training_learns_what_it_learns_on_the_cpu(changes: dict[str, object], shared: Place) -> None:
    with simulated_mac():
        mac = trained(shared, name="mac", cpu=False, **changes)
    plan = read_plan(mac)
    assert plan is not None
    assert (plan.device, plan.device_name) == ("mps", NAME)
    assert_learned_the_same(mac, trained(shared, name="cpu", cpu=True, **changes))


def test_masks_and_regularisation_pictures(shared: Place) -> None:
    masks, prior = shared.dataset.with_name("masks"), shared.dataset.with_name("prior")
    save_pictures(prior, ((80, 80),) * 2, first_seed=20)
    masks.mkdir()
    for picture in shared.dataset.glob("*.png"):
        with Image.open(picture) as image:
            mask = Image.new("L", image.size, 255)
        mask.paste(0, (0, 0, mask.width // 2, mask.height))
        mask.save(masks / picture.name)
    changes = {"mask_folder": str(masks), "prior_dataset": str(prior), "prior_loss_weight": 0.5}
    with simulated_mac():
        mac = trained(shared, name="mac", cpu=False, **changes)
    assert_learned_the_same(mac, trained(shared, name="cpu", cpu=True, **changes))


def test_held_out_losses_and_pictures_are_made_and_the_file_is_checked(shared: Place) -> None:
    with simulated_mac():
        looks = {"held_out_steps": 2, "num_validation_images": 1, "validation_inference_steps": 2}
        run = trained(shared, name="mac", cpu=False, **looks)
    events = read_events(run.events)
    assert [event.step for event in events if isinstance(event, HeldOutEvent)] == [0, 2]
    assert [event.step for event in events if isinstance(event, SampleEvent)] == [0, 2]
    (finished,) = (event for event in events if isinstance(event, FinishedEvent))
    assert all((run.root / file).is_file() for file in finished.files)
