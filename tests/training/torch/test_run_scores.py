"""Scores of a run's images: each with the training image that comes nearest, by its key."""

from pathlib import Path

import numpy as np
from PIL import Image

from studio.datasets.snapshot import Snapshot
from studio.training.events import SampleEvent
from studio.training.settings import TrainingSettings
from studio.training.torch.data import make_training_set
from studio.training.torch.scores import RunScores


def make_scores(tmp_path: Path, snapshot: Snapshot) -> RunScores:
    settings = TrainingSettings(dataset="shoes", held_out_percent=0)
    return RunScores(tmp_path, make_training_set(snapshot, settings, resolution=64).items)


def sample(step: int, *pictures: str | None) -> SampleEvent:
    base = ("base.png",) * len(pictures)
    return SampleEvent(
        step=step, prompts=("a shoe",) * len(pictures), base=base, pictures=pictures, lora="l", seconds=1
    )


def test_a_copy_of_a_training_picture_is_told_by_its_key(tmp_path: Path, snapshot: Snapshot) -> None:
    scores = make_scores(tmp_path, snapshot)
    third = scores.items[3]
    with Image.open(third.path) as picture:
        picture.convert("RGB").save(tmp_path / "copy.png")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "base.png")
    event = scores.score(sample(10, "copy.png", None, "base.png"))
    copy, invalid, other = event.nearest
    assert copy is not None
    assert other is not None
    assert invalid is None
    assert copy.distance < 0.02 < other.distance
    assert (copy.likeness, copy.mirrored) == ("as a copy", False)
    same = {item.key for item in scores.items if item.sha256 == third.sha256}
    assert copy.key in same
    assert event.scores.num_pictures == 2, "one is not valid"


def test_what_was_told_and_not_scored_is_known_while_its_pictures_are_there(tmp_path: Path, snapshot: Snapshot) -> None:
    scores = make_scores(tmp_path, snapshot)
    for name in ("base.png", "a.png"):
        Image.new("RGB", (64, 64), "red").save(tmp_path / name)
    there, lost = sample(5, "a.png", None), sample(10, "b.png")
    scores.take_in(there)
    scores.take_in(lost)
    assert scores.unscored() == [there], "b.png was deleted"
    assert not scores.has_scored(5)
    scores.take_in(scores.score(there))
    assert scores.unscored() == []
    assert scores.has_scored(5)
    assert scores.has_scored(10), "a run whose images were deleted can still end"


def test_at_step_0_the_pictures_are_the_bases_own(tmp_path: Path, snapshot: Snapshot) -> None:
    scores = make_scores(tmp_path, snapshot)
    Image.new("RGB", (64, 64), "red").save(tmp_path / "base.png")
    event = scores.score(sample(0, "base.png"))
    assert event.scores == event.base
    assert len(event.nearest) == 1
