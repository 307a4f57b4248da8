"""Images that are asked for while something else is being made: in turn, each once, and only what was pressed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.core.errors import EngineError
from studio.core.paths import UserData
from studio.core.results import EngineFacts, PrecisionDecision
from studio.core.settings import GenerationSettings, ImagesSettings, ModelSettings, SmokeSettings
from studio.core.system import MemorySample, MemoryUse
from studio.engine.process.client import EngineClient
from studio.engine.process.messages import Cancel, Failed, Generate, ImagesChanged, Loaded, Request
from studio.engine.process.run_queue import MAX_QUEUED, RunQueue
from studio.engine.process.view import EngineView
from studio.ui.shell.parts import Refusal
from studio.ui.shell.status import cancelling

SAMPLE = MemorySample(process_bytes=1, system_available_bytes=1, system_total_bytes=2)
FACTS = EngineFacts(
    device="cpu",
    device_name="CPU",
    precision=PrecisionDecision(precision="float32", requested="float32", reason="On a CPU."),
    model="shoes-demo",
    model_folder="shoes-demo",
    parameters=1,
    width=128,
    height=128,
    load_seconds=1,
    load_memory=MemoryUse(before=SAMPLE, after=SAMPLE, peak_process_bytes=1, least_available_bytes=1),
)


def boots(seed: int) -> ImagesSettings:
    return ImagesSettings(generation=GenerationSettings(prompt="boots", seed=seed, num_inference_steps=2))


def seeds(view: EngineView) -> list[int]:
    """Of what waits."""
    return [queued.run.settings.generation.seed for queued in view.queue.waiting]


@pytest.fixture
def told(tmp_path: Path) -> Iterator[tuple[EngineClient, list[Request]]]:
    """A client that is ready, and what it asks of its engine, which is not there."""
    sent: list[Request] = []

    class Told(EngineClient):
        def _send(self, request: Request) -> None:
            sent.append(request)

    client = Told(UserData(tmp_path), model=ModelSettings(), cpu_only=True)
    client._take_in(Loaded(facts=FACTS, tokenizer_file=tmp_path))
    yield client, sent


def end(client: EngineClient, settings: ImagesSettings, **changes: object) -> None:
    report = {"settings": settings, "finished": True, **changes}
    client._take_in(ImagesChanged.model_validate({"report": report}))


def test_each_press_is_made_in_its_turn(told: tuple[EngineClient, list[Request]]) -> None:
    client, sent = told
    for seed in (1, 2, 3):
        client.generate(boots(seed))
    assert sent == [Generate(settings=boots(1))]
    assert seeds(client.view) == [2, 3]
    with pytest.raises(EngineError, match="images are being made"):
        client.run_smoke_test(SmokeSettings())
    numbers = [client.view.run_number]
    for seed in (1, 2, 3):
        end(client, boots(seed))
        numbers.append(client.view.run_number)
    assert [request.settings for request in sent if isinstance(request, Generate)] == [boots(1), boots(2), boots(3)]
    assert numbers[:3] == [numbers[0] + i for i in range(3)], "each run has a number of its own"
    assert client.view.phase == "ready"
    assert seeds(client.view) == []


def test_one_of_them_or_all_can_be_removed_and_what_has_begun_cannot(
    told: tuple[EngineClient, list[Request]],
) -> None:
    client, _ = told
    for seed in (1, 2, 3, 4):
        client.generate(boots(seed))
    second, third, _ = client.view.queue.waiting
    client.unqueue(third.number)
    assert seeds(client.view) == [2, 4]
    end(client, boots(1))
    for gone in (second, third):
        with pytest.raises(EngineError, match="has begun, or is no longer in the queue"):
            client.unqueue(gone.number)
    assert seeds(client.view) == [4]
    client.unqueue(None)
    assert seeds(client.view) == []
    assert client.view.phase == "generating", "what runs goes on"
    client.generate(boots(5))
    assert client.view.queue.waiting[0].number not in (second.number, third.number)


def test_cancel_ends_what_runs_and_the_next_begins(told: tuple[EngineClient, list[Request]]) -> None:
    client, sent = told
    client.generate(boots(1))
    client.generate(boots(2))
    client.cancel()
    assert isinstance(sent[-1], Cancel)
    end(client, boots(1), cancelled=True)
    assert sent[-1] == Generate(settings=boots(2))
    assert not client.view.cancelling


def test_what_cannot_be_made_is_said_and_the_next_is_made(told: tuple[EngineClient, list[Request]]) -> None:
    client, sent = told
    client.generate(boots(1))
    client.generate(boots(2))
    client._take_in(Failed(message="There is no LoRA named x.", facts=FACTS))
    assert sent[-1] == Generate(settings=boots(2))
    assert client.view.problem == "There is no LoRA named x."
    end(client, boots(2))
    assert client.view.problem == "There is no LoRA named x.", "until something else is pressed"


def test_without_a_model_nothing_stays_queued_for_another(told: tuple[EngineClient, list[Request]]) -> None:
    client, sent = told
    client.generate(boots(1))
    client.generate(boots(2))
    client._take_in(Failed(message="Out of memory.", facts=None))
    assert client.view.problem == "Out of memory. 1 queued request dropped."
    assert client.view.phase == "no model"
    client._take_in(Loaded(facts=FACTS, tokenizer_file=Path()))
    assert sent == [Generate(settings=boots(1))]


def test_the_queue_has_an_end() -> None:
    queue = RunQueue()
    for seed in range(MAX_QUEUED):
        assert not queue.is_full
        queue = queue.added(Generate(settings=boots(seed)))
    assert not EngineView(phase="generating", queue=queue).takes_images
    with pytest.raises(EngineError, match=f"{MAX_QUEUED} requests are queued already"):
        queue.added(Generate(settings=boots(0)))


def test_a_cancel_for_a_run_that_is_over_does_not_end_the_next(told: tuple[EngineClient, list[Request]]) -> None:
    client, sent = told
    client.generate(boots(1))
    client.generate(boots(2))
    shown = str(client.view.run_number)  # on the page, which has not heard yet that the first is over
    end(client, boots(1))
    cancel = cancelling(client, "generating")
    with pytest.raises(Refusal, match="Nothing was cancelled"):
        cancel(shown)
    assert not any(isinstance(request, Cancel) for request in sent)
    cancel(str(client.view.run_number))
    assert isinstance(sent[-1], Cancel)
