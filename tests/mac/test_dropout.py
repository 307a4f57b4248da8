"""LoRA dropout on a Mac: drawn as on the CPU, and the same again where gradient checkpointing computes anew."""

import torch

from studio.training.torch.run import open_loop
from tests.faults.conftest import Place
from tests.mac import test_training as trainings
from tests.mac.simulated_mac import simulated_mac
from tests.mac.test_training import assert_learned_the_same, trained
from tests.training.torch.parts import give_effect

shared = trainings.shared
DROPOUT = {"lora_dropout": 0.5}


def gradients(place: Place, *, checkpointing: str, cpu: bool) -> dict[str, torch.Tensor]:
    """Of the first step, on the CPU."""
    changes = {"gradient_accumulation_steps": 1, "gradient_checkpointing": checkpointing, "cpu": cpu}
    run = place.begin(name=f"{checkpointing}-{cpu}", **changes, **DROPOUT)
    found: dict[str, torch.Tensor] = {}
    with open_loop(run, place.user_data) as loop:
        give_effect(loop.state.adapters)  # up weights begin at zero, and so do the gradients of the down weights
        for name, parameter in loop.state.adapters.named_parameters():
            parameter.register_hook(lambda gradient, name=name: found.update({name: gradient.cpu()}))
        loop.denoiser.train()
        loop.step()
    return found


def test_gradients_are_the_same_with_and_without_checkpointing_and_those_of_the_cpu(shared: Place) -> None:
    expected = gradients(shared, checkpointing="off", cpu=True)
    with simulated_mac():
        off, on = (gradients(shared, checkpointing=choice, cpu=False) for choice in ("off", "on"))
    assert expected.keys() == off.keys() == on.keys()
    for name, gradient in expected.items():
        largest = float(gradient.abs().max())
        assert torch.allclose(off[name], on[name], rtol=1e-4, atol=1e-6 * largest), name
        assert torch.allclose(off[name], gradient, rtol=1e-3, atol=1e-5 * largest), name


def test_a_training_with_dropout_and_checkpointing_learns_what_it_learns_on_the_cpu(shared: Place) -> None:
    changes = {"gradient_checkpointing": "on", **DROPOUT}
    with simulated_mac():
        mac = trained(shared, name="mac", cpu=False, **changes)
    assert_learned_the_same(mac, trained(shared, name="cpu", cpu=True, **changes))
