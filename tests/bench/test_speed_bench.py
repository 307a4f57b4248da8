"""The speed bench's contest run for real, on the shipped model at 64 pixels; how long images took is not asserted."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bench.settings import BenchSettings
from bench.speed import EXACT_NAME, FULL_NAME, SEED, Contest
from studio.core.settings import GenerationSettings, ModelSettings
from studio.engine.pipeline import PipelineManager

PROMPTS = ("a photo of red boots", "a photo of black sneakers")
FULL = GenerationSettings(prompt="", num_inference_steps=3, width=64, height=64)


@pytest.fixture(scope="module")
def contest(tmp_path_factory: pytest.TempPathFactory) -> Contest:
    manager = PipelineManager(torch.device("cpu"), rejected_folder=tmp_path_factory.mktemp("rejected"))
    manager.load(ModelSettings())
    ways = {
        FULL_NAME: FULL,
        EXACT_NAME: FULL.model_copy(update={"num_inference_steps": 4}),
        "the same": FULL,
        "fewer": FULL.model_copy(update={"num_inference_steps": 1}),
    }
    made = Contest(manager, ways)
    made.draw(PROMPTS, num_seeds=2)
    return made


def test_every_way_draws_the_same_prompts_and_seeds(contest: Contest) -> None:
    assert [[one.prompt for one in block] for block in contest.drawn["fewer"]] == [[*PROMPTS], [*PROMPTS]]
    again = contest.manager.generate(FULL.model_copy(update={"prompt": PROMPTS[1], "seed": SEED + 3})).picture
    drawn = contest.drawn[FULL_NAME][1][1].picture
    assert drawn is not None
    assert np.array_equal(again, drawn)


def test_the_same_images_cost_nothing_and_others_their_distance(contest: Contest) -> None:
    same = {figure.name: figure for figure in contest.figures("the same", time_limit=0.5)}
    assert same["the same: distance to 25 steps"].ours.greatest == 0
    assert same["the same: whiteness lost"].ours.greatest == same["the same: sharpness changed"].ours.greatest == 0
    fewer = {figure.name: figure for figure in contest.figures("fewer", time_limit=0.5)}
    for name, way in (("25 steps", FULL_NAME), ("100 steps", EXACT_NAME)):
        apart = []
        for ours, theirs in zip(contest.drawn["fewer"], contest.drawn[way], strict=True):
            pairs = [(a.picture, b.picture) for a, b in zip(ours, theirs, strict=True)]
            squares = [np.mean((np.float64(a) - np.float64(b)) ** 2) for a, b in pairs]  # type: ignore[arg-type]
            apart.append(float(np.mean(np.sqrt(squares))))
        distances = fewer[f"fewer: distance to {name}"].ours
        assert (distances.least, distances.greatest) == pytest.approx((min(apart), max(apart)))
    time = fewer["fewer: CPU time of an image"]
    assert time.peer is not None
    assert time.peer.name == FULL_NAME


def test_the_command_line_asks_for_a_file_steps_and_the_whole_batch() -> None:
    settings = BenchSettings(only=("speed",), speed_lora=Path("x.safetensors"), speed_steps=(2, 8), whole_batch=True)
    words = "--speed-steps 2 --speed-steps 8 --speed-lora FILE --whole-batch"
    assert settings.command == f"python -m studio bench --only speed --runs 3 {words}"
