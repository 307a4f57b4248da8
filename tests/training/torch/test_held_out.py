"""Losses that can be compared from step to step, on images that are kept out and on those that are trained on."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from studio.datasets.snapshot import Snapshot
from studio.engine.models import Components
from studio.training.torch.batches import BatchMaker, TrainingBatch
from studio.training.torch.loss import NUM_TRIPLES, Denoiser, HeldOutLoss, NoiseLoss, Triple, choose_triples
from studio.training.torch.processes import Processes
from tests.training.torch.parts import (
    Bench,
    give_effect,
    items_of,
    make_adapters,
    make_bench,
    make_loop,
    save_pictures,
    settings_of,
    snapshot_of,
    snapshot_of_sizes,
)

ITEMS = items_of(snapshot_of_sizes([(80, 80)] * 5))


def triples_of(bench: Bench) -> tuple[tuple[Triple, ...], tuple[Triple, ...]]:
    own = [item for item in bench.data.items if not item.is_prior]
    return (
        choose_triples(bench.data.held_out, num_train_timesteps=1000, side="held out"),
        choose_triples(own, num_train_timesteps=1000, side="trained"),
    )


def loss_by_hand(bench: Bench, triples: tuple[Triple, ...]) -> float:
    """One after the other, from the VAE's mean and the caption on."""
    parts, losses = bench.components, []
    for triple in triples:
        mean = bench.latents.moments(triple.item, triple.item.variants[0])[0]
        latent = mean[None] * parts.vae.config.scaling_factor
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(triple.noise_seed))
        timestep = torch.tensor([triple.timestep])
        noisy = bench.noise_scheduler.add_noise(latent, noise, timestep)
        text, _ = parts.pipeline.encode_prompt(triple.item.caption, torch.device("cpu"), 1, False)
        with torch.no_grad():
            found = parts.unet(noisy, timestep, text).sample
        losses.append(float(functional.mse_loss(found, noise)))
    return sum(losses) / len(losses)


@pytest.fixture
def bench(snapshot: Snapshot, components: Components, cache: Path) -> Bench:
    """Six images that are trained on, two that are held out."""
    made = make_bench(snapshot, settings_of(held_out_percent=25), components, cache)
    assert (len(made.data.items), len(made.data.held_out)) == (6, 2)
    return made


def test_triples_go_round_pictures_and_over_all_timesteps() -> None:
    triples = choose_triples(ITEMS, num_train_timesteps=1000, side="trained")
    assert len(triples) == NUM_TRIPLES
    seen = [sum(triple.item == item for triple in triples) for item in ITEMS]
    assert max(seen) - min(seen) <= 1
    width = 1000 / NUM_TRIPLES
    assert [int(triple.timestep // width) for triple in triples] == list(range(NUM_TRIPLES))
    assert len({triple.noise_seed for triple in triples}) == NUM_TRIPLES


def test_triples_are_the_same_whatever_the_order_of_the_pictures() -> None:
    turned = tuple(reversed(ITEMS))
    assert choose_triples(turned, num_train_timesteps=1000, side="a") == choose_triples(
        ITEMS, num_train_timesteps=1000, side="a"
    )


def test_the_two_sides_have_other_noise() -> None:
    one, other = (choose_triples(ITEMS, num_train_timesteps=1000, side=side) for side in ("a", "b"))
    assert not {triple.noise_seed for triple in one} & {triple.noise_seed for triple in other}


def test_without_pictures_there_are_no_triples() -> None:
    assert choose_triples((), num_train_timesteps=1000, side="held out") == ()


def test_losses_are_those_of_each_triple_written_out(bench: Bench) -> None:
    give_effect(make_adapters(bench))
    held_out, trained = HeldOutLoss(bench.maker, bench.noise_loss, batch_size=3).measure(
        Denoiser(bench.components, train_text_encoder=False)
    )
    wanted_held_out, wanted_trained = (loss_by_hand(bench, triples) for triples in triples_of(bench))
    assert held_out == pytest.approx(wanted_held_out, rel=1e-4)
    assert trained == pytest.approx(wanted_trained, rel=1e-4)
    assert held_out != pytest.approx(trained, rel=1e-3)


def test_losses_are_of_the_trainings_own_kind_and_not_weighted(bench: Bench) -> None:
    """huber of each triple, and min-SNR does not weigh it."""
    denoiser = Denoiser(bench.components, train_text_encoder=False)

    def measured(**changes: object) -> tuple[float | None, float]:
        noise_loss = NoiseLoss(settings_of(**changes), bench.noise_scheduler)
        return HeldOutLoss(bench.maker, noise_loss, batch_size=4).measure(denoiser)

    huber = measured(loss_type="huber", huber_schedule="constant", huber_c=0.1)
    assert measured(loss_type="huber", huber_schedule="constant", huber_c=0.1, snr_gamma=1.0) == huber
    assert huber[1] < 0.5 * measured()[1]


@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_the_batch_size_does_not_count(bench: Bench, batch_size: int) -> None:
    denoiser = Denoiser(bench.components, train_text_encoder=False)
    wanted = HeldOutLoss(bench.maker, bench.noise_loss, batch_size=5).measure(denoiser)
    found = HeldOutLoss(bench.maker, bench.noise_loss, batch_size=batch_size).measure(denoiser)
    assert found == pytest.approx(wanted, rel=1e-5)


def test_chance_and_dropout_do_not_count(snapshot: Snapshot, components: Components, cache: Path) -> None:
    """Measured twice, the loss is the same to the bit, and the global random state is not moved."""
    settings = settings_of(
        held_out_percent=25,
        lora_dropout=0.5,
        caption_dropout=1.0,
        horizontal_flip=True,
        crop="random",
        noise_offset=0.5,
    )
    bench = make_bench(snapshot, settings, components, cache)
    give_effect(make_adapters(bench))
    denoiser = Denoiser(components, train_text_encoder=False).train()
    loss = HeldOutLoss(bench.maker, bench.noise_loss, batch_size=4)
    state = torch.get_rng_state()
    first = loss.measure(denoiser)
    assert torch.equal(torch.get_rng_state(), state)
    assert loss.measure(denoiser) == first
    plain = make_bench(snapshot, settings_of(held_out_percent=25), components, cache)
    assert HeldOutLoss(plain.maker, plain.noise_loss, batch_size=4).measure(denoiser) == first


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(bench: Bench, training: bool) -> None:
    make_adapters(bench)
    denoiser = Denoiser(bench.components, train_text_encoder=False).train(training)
    HeldOutLoss(bench.maker, bench.noise_loss, batch_size=4).measure(denoiser)
    assert denoiser.training == training
    assert {module.training for module in denoiser.unet.modules()} == {training}
    assert all(parameter.grad is None for parameter in denoiser.parameters())


def test_the_sides_tell_pictures_apart(bench: Bench) -> None:
    held_out, trained = triples_of(bench)
    assert {triple.item.key for triple in held_out} == {item.key for item in bench.data.held_out}
    assert {triple.item.key for triple in trained} == {item.key for item in bench.data.items}


def test_where_nothing_is_held_out_there_is_no_such_loss(
    snapshot: Snapshot, components: Components, cache: Path
) -> None:
    bench = make_bench(snapshot, settings_of(), components, cache)
    held_out, trained = HeldOutLoss(bench.maker, bench.noise_loss, batch_size=4).measure(
        Denoiser(components, train_text_encoder=False)
    )
    assert held_out is None
    assert trained > 0


@pytest.mark.parametrize("prior_loss_weight", [1.0, 0.5])
def test_regularisation_pictures_are_not_what_is_trained_on(
    prior_loss_weight: float, snapshot: Snapshot, components: Components, tmp_path: Path
) -> None:
    """Whatever their weight."""
    prior = snapshot_of(save_pictures(tmp_path / "prior", [(80, 80)] * 8, first_seed=60))
    denoiser = Denoiser(components, train_text_encoder=False)
    settings = settings_of(held_out_percent=25, prior_loss_weight=prior_loss_weight)
    mixed = make_bench(snapshot, settings, components, tmp_path / "cache", prior=prior)
    alone = make_bench(snapshot, settings, components, tmp_path / "cache")
    assert len(mixed.data.items) == 12
    found = HeldOutLoss(mixed.maker, mixed.noise_loss, batch_size=4).measure(denoiser)
    assert found == HeldOutLoss(alone.maker, alone.noise_loss, batch_size=4).measure(denoiser)


def test_a_learning_text_encoder_is_measured_too(snapshot: Snapshot, components: Components, cache: Path) -> None:
    bench = make_bench(snapshot, settings_of(held_out_percent=25, train_text_encoder=True), components, cache)
    loss, denoiser = (
        HeldOutLoss(bench.maker, bench.noise_loss, batch_size=4),
        Denoiser(components, train_text_encoder=True),
    )
    before = loss.measure(denoiser)
    adapters = make_adapters(bench)
    assert loss.measure(denoiser) == pytest.approx(before, rel=1e-5)
    with torch.no_grad():
        for name, parameter in adapters.named_parameters("text_encoder"):
            if "lora_B" in name:
                parameter += 1
    after = loss.measure(denoiser)
    assert after[0] != pytest.approx(before[0], rel=1e-3)


def test_held_out_pictures_are_never_trained_on(
    bench: Bench, processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a run that sees every other image many times."""
    seen: set[str] = set()
    make = BatchMaker.batch

    def watched(maker: BatchMaker, number: int) -> TrainingBatch:
        batch = make(maker, number)
        seen.update(batch.keys)
        return batch

    monkeypatch.setattr(BatchMaker, "batch", watched)
    make_loop(bench, make_adapters(bench), processes, tmp_path).train()
    assert seen == {item.key for item in bench.data.items}
    for number in range(100):
        seen.update(bench.maker.batch(number).keys)
    assert not seen & {item.key for item in bench.data.held_out}
