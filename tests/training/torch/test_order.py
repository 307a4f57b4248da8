"""Batches are full, fair and pure functions of seed and number."""

import itertools
import random
from collections import Counter
from dataclasses import replace

import pytest
import torch

from studio.training.torch.batches import BatchOrder, draw, shuffled_caption
from studio.training.torch.data import seed_of
from tests.training.torch.parts import items_of, snapshot_of_sizes

SHAPES = [(80, 80)] * 7 + [(100, 60)] * 5 + [(60, 100)] * 3 + [(200, 80)]
ITEMS = items_of(snapshot_of_sizes(SHAPES))
SHAPE_CHW = (4, 8, 8)


def batches(order: BatchOrder, number: int) -> list[tuple[int, ...]]:
    return [order.batch(i) for i in range(number)]


@pytest.mark.parametrize("batch_size", [1, 2, 4, 5, 32])
def test_every_batch_is_full_and_of_one_size(batch_size: int) -> None:
    for batch in batches(BatchOrder(ITEMS, batch_size, seed=1), 200):
        assert len(batch) == batch_size
        assert len({ITEMS[index].bucket for index in batch}) == 1


@pytest.mark.parametrize("batch_size", [1, 2, 4, 5])
def test_every_picture_is_seen_as_often_as_any_other(batch_size: int) -> None:
    """To what is still carried over at the end: less than a batch a bucket."""
    number = 100 * len(ITEMS) // batch_size
    seen = Counter(itertools.chain.from_iterable(batches(BatchOrder(ITEMS, batch_size, seed=1), number)))
    assert set(seen) == set(range(len(ITEMS)))
    assert max(seen.values()) - min(seen.values()) <= batch_size + 1


def test_a_picture_with_repeats_is_seen_so_many_times_more() -> None:
    items = items_of(snapshot_of_sizes([(80, 80)] * 4, repeats=(1, 3, 1, 5)))
    seen = Counter(itertools.chain.from_iterable(batches(BatchOrder(items, 2, seed=1), 50 * 10 // 2)))
    assert [seen[i] for i in range(4)] == [50, 150, 50, 250]


def test_an_epoch_counts_repeats() -> None:
    order = BatchOrder(items_of(snapshot_of_sizes([(80, 80)] * 2, repeats=(1, 3))), 2, seed=1)
    assert sorted(itertools.chain.from_iterable(batches(order, 2))) == [0, 1, 1, 1]


def test_jumping_to_a_batch_gives_what_going_there_gives() -> None:
    walked = batches(BatchOrder(ITEMS, 3, seed=5), 520)
    for number in (500, 519, 0, 77):
        assert BatchOrder(ITEMS, 3, seed=5).batch(number) == walked[number]


def test_another_seed_gives_another_order() -> None:
    assert batches(BatchOrder(ITEMS, 3, seed=5), 20) != batches(BatchOrder(ITEMS, 3, seed=6), 20)


def test_an_epochs_order_is_another_in_the_next() -> None:
    items = items_of(snapshot_of_sizes([(80, 80)] * 12))
    order = batches(BatchOrder(items, 1, seed=5), 24)
    assert sorted(order[:12]) == sorted(order[12:])
    assert order[:12] != order[12:]


def test_a_picture_meets_others_in_each_epoch() -> None:
    items = items_of(snapshot_of_sizes([(80, 80)] * 12))
    order = batches(BatchOrder(items, 2, seed=5), 6 * 20)
    assert len({frozenset(batch) for batch in order}) > 40  # of 66 pairs; 6 where the same meet always


def test_sizes_are_mixed_and_not_one_after_the_other() -> None:
    order = BatchOrder(ITEMS, 1, seed=5)
    sizes = [ITEMS[index].bucket for (index,) in batches(order, len(ITEMS))]
    assert len(list(itertools.groupby(sizes))) > len(set(sizes))


def test_what_an_item_is_called_does_not_move_the_others() -> None:
    renamed = [replace(item, key=f"x{item.key}", caption="other") for item in ITEMS]
    assert batches(BatchOrder(renamed, 3, seed=5), 50) == batches(BatchOrder(ITEMS, 3, seed=5), 50)


def test_a_draw_is_a_function_of_seed_batch_and_slot() -> None:
    def noise(seed: int, batch: int, slot: int) -> torch.Tensor:
        torch.rand(3)  # the global state must not count
        return draw(seed, batch, slot, shape_CHW=SHAPE_CHW, num_train_timesteps=1000).noise_CHW

    assert torch.equal(noise(1, 2, 3), noise(1, 2, 3))
    for other in ((0, 2, 3), (1, 3, 3), (1, 2, 4), (1, 23, 0), (12, 3, 0)):
        assert not torch.equal(noise(1, 2, 3), noise(*other))


def test_chance_decides_the_same_for_pictures_of_another_size() -> None:
    """Flip, crop, dropout and timestep are drawn before what depends on a shape."""
    small = draw(1, 2, 3, shape_CHW=SHAPE_CHW, num_train_timesteps=1000)
    large = draw(1, 2, 3, shape_CHW=(4, 16, 12), num_train_timesteps=1000)
    assert (small.flip, small.crop, small.drop_caption) == (large.flip, large.crop, large.drop_caption)
    assert small.timestep == large.timestep


def test_draws_are_what_they_are_called() -> None:
    draws = [draw(4, i, 0, shape_CHW=SHAPE_CHW, num_train_timesteps=50) for i in range(3000)]
    timesteps = Counter(d.timestep for d in draws)
    assert (min(timesteps), max(timesteps)) == (0, 49)
    assert max(timesteps.values()) < 3 * min(timesteps.values())
    for chance in ([d.flip for d in draws], [d.crop for d in draws], [d.drop_caption for d in draws]):
        assert 0 <= min(chance) < 0.01 < 0.99 < max(chance) < 1
        assert sum(chance) / 3000 == pytest.approx(0.5, abs=0.03)
    for normal in ("posterior_CHW", "noise_CHW"):
        values = torch.stack([getattr(d, normal) for d in draws])
        assert values.shape[1:] == SHAPE_CHW
        assert float(values.mean()) == pytest.approx(0, abs=0.01)
        assert float(values.std()) == pytest.approx(1, abs=0.01)
    offsets = torch.stack([d.offset_C11 for d in draws])
    assert offsets.shape[1:] == (4, 1, 1)
    assert float(offsets.std()) == pytest.approx(1, abs=0.05)


def test_noise_posterior_and_offset_are_drawn_apart() -> None:
    chance = draw(1, 2, 3, shape_CHW=SHAPE_CHW, num_train_timesteps=1000)
    together = torch.stack([chance.noise_CHW.flatten(), chance.posterior_CHW.flatten()])
    assert abs(float(torch.corrcoef(together)[0, 1])) < 0.2


def test_seeds_of_other_words_are_others() -> None:
    assert len({seed_of("a", 1, 23), seed_of("a", 12, 3), seed_of("b", 1, 23), seed_of("a", 1, 2, 3)}) == 4
    assert 0 <= seed_of("a", 1) < 2**63


def test_shuffling_keeps_the_first_parts_and_loses_none() -> None:
    caption = "shoe, red, white ground, side view, large"
    orders = {shuffled_caption(caption, keep_tokens=2, rng=random.Random(i)) for i in range(200)}
    assert len(orders) == 6
    for order in orders:
        assert order.startswith("shoe, red, ")
        assert sorted(order.split(", ")) == sorted(caption.split(", "))


@pytest.mark.parametrize("keep_tokens", [0, 1, 5, 9])
def test_a_caption_of_one_part_stays_as_it_is(keep_tokens: int) -> None:
    assert shuffled_caption("a shoe", keep_tokens=keep_tokens, rng=random.Random(1)) == "a shoe"
