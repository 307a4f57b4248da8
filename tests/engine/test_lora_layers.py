"""LoRAs attached to a real model: every dialect does what changing the weights does, and leaves no trace."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from studio.core.errors import LoraError, StudioError, WeightsFileError
from studio.core.settings import GenerationSettings, LoraChoice, ModelSettings
from studio.engine import lora_layers, memory
from studio.engine.device import assert_precision
from studio.engine.lora_file import LayerWeights
from studio.engine.lora_layers import WeightSum
from studio.engine.memory import SUM_LIMIT_BYTES, sum_limit
from studio.engine.pipeline import GeneratedImage, PipelineManager
from studio.loras.library import LoraLibrary
from tests.engine.lora_files import ALPHA, DIALECTS, RANK, Update, known_update, merged, save_half, save_kohya

SCALE = ALPHA / RANK


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loras")


@pytest.fixture(scope="module", params=["sums", "hooks"])
def studio(request: pytest.FixtureRequest, folder: Path) -> PipelineManager:
    """The shipped model with a library of its own, as small models are treated and as large ones are."""
    manager = PipelineManager(torch.device("cpu"), rejected_folder=folder / "rejected", library=LoraLibrary(folder))
    manager.load(ModelSettings())
    if request.param == "hooks":
        manager.loras.sum_limit_bytes = 0
    return manager


@pytest.fixture(scope="module")
def update(studio: PipelineManager) -> Update:
    return known_update(studio.components)


@pytest.fixture(scope="module")
def merged_image(update: Update, folder: Path) -> GeneratedImage:
    """The image of a model whose weights were changed directly, at strength 0.8."""
    manager = PipelineManager(torch.device("cpu"), rejected_folder=folder)
    manager.load(ModelSettings())
    merged(manager.components, update, scale=0.8 * SCALE)
    return manager.generate(SETTINGS)


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test ends with the base, untouched."""
    yield
    if "studio" in request.fixturenames:
        studio = request.getfixturevalue("studio")
        studio.loras.use(())
        modules = [m for part in studio.components.modules().values() for m in part.modules()]
        assert not any(module._forward_hooks for module in modules)
        assert not studio.loras._attached


SETTINGS = GenerationSettings(prompt="brown leather boots", num_inference_steps=4, seed=3)


def with_loras(*choices: tuple[str, float]) -> GenerationSettings:
    loras = tuple(LoraChoice(name=name, strength=strength) for name, strength in choices)
    return SETTINGS.model_copy(update={"loras": loras})


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_gives_the_picture_of_changed_weights(
    dialect: str, studio: PipelineManager, folder: Path, update: Update, merged_image: GeneratedImage
) -> None:
    DIALECTS[dialect](folder / f"{dialect}.safetensors", update)
    base = studio.generate(SETTINGS)
    image = studio.generate(with_loras((dialect, 0.8)))
    torch.testing.assert_close(image.latents_CHW, merged_image.latents_CHW, atol=2e-3, rtol=1e-3)
    assert np.abs(image.picture.astype(int) - merged_image.picture).max() <= 2
    assert (base.latents_CHW - image.latents_CHW).abs().mean() > 0.05, "the update must be large enough to see"


def test_taking_a_lora_off_gives_the_base_back_to_the_bit(
    studio: PipelineManager, folder: Path, update: Update
) -> None:
    save_kohya(folder / "off.safetensors", update)
    before = studio.generate(SETTINGS).latents_CHW
    weights = {k: v.clone() for k, v in studio.components.unet.state_dict().items()}
    studio.generate(with_loras(("off", 1.0)))
    assert torch.equal(studio.generate(SETTINGS).latents_CHW, before)
    assert all(torch.equal(v, weights[k]) for k, v in studio.components.unet.state_dict().items())


def test_strength_0_is_the_base_to_the_bit(studio: PipelineManager, folder: Path, update: Update) -> None:
    save_kohya(folder / "zero.safetensors", update)
    image = studio.generate(with_loras(("zero", 0.0)))
    assert torch.equal(image.latents_CHW, studio.generate(SETTINGS).latents_CHW)
    assert image.record.loras == ()


def test_two_loras_act_as_the_sum_of_both(studio: PipelineManager, folder: Path, update: Update) -> None:
    save_kohya(folder / "one.safetensors", update)
    half = studio.generate(with_loras(("one", 0.4))).latents_CHW
    save_half(folder / "two.safetensors", load_file(folder / "one.safetensors"), {})
    both = studio.generate(with_loras(("one", 0.15), ("two", 0.25))).latents_CHW
    torch.testing.assert_close(both, half, atol=1e-3, rtol=1e-3)


def test_a_lora_that_is_tagged_and_chosen_acts_with_the_sum_of_its_strengths(
    studio: PipelineManager, folder: Path, update: Update
) -> None:
    save_kohya(folder / "tagged.safetensors", update)
    tagged = SETTINGS.model_copy(
        update={"prompt": f"{SETTINGS.prompt}, <lora:tagged:0.3>", "loras": (LoraChoice(name="tagged", strength=0.2),)}
    )
    image = studio.generate(tagged)
    assert torch.allclose(image.latents_CHW, studio.generate(with_loras(("tagged", 0.5))).latents_CHW, atol=1e-4)
    assert [(lora.name, round(lora.strength, 6)) for lora in image.record.loras] == [("tagged", 0.5)]


def test_a_lora_of_the_text_encoder_alone_changes_the_picture_although_prompts_are_cached(
    studio: PipelineManager, folder: Path, update: Update
) -> None:
    text_only = {key: pair for key, pair in update.items() if key[0] == "text_encoder"}
    save_kohya(folder / "text.safetensors", text_only)
    base = studio.generate(SETTINGS).latents_CHW
    assert not torch.equal(studio.generate(with_loras(("text", 1.0))).latents_CHW, base)
    assert torch.equal(studio.generate(SETTINGS).latents_CHW, base)


def test_a_file_that_changed_under_its_name_is_read_again(
    studio: PipelineManager, folder: Path, update: Update
) -> None:
    save_kohya(folder / "changed.safetensors", update)
    first = studio.generate(with_loras(("changed", 1.0)))
    save_kohya(folder / "changed.safetensors", {key: (down, -up) for key, (down, up) in update.items()})
    second = studio.generate(with_loras(("changed", 1.0)))
    assert first.record.loras[0].sha256 != second.record.loras[0].sha256
    assert not torch.equal(first.latents_CHW, second.latents_CHW)


def broken_state(name: str, folder: Path, update: Update) -> dict[str, torch.Tensor]:
    path = folder / f"whole-{name}.safetensors"
    save_kohya(path, update)
    return load_file(path)


def first_key(state: dict[str, torch.Tensor], ending: str) -> str:
    return next(key for key in sorted(state) if key.startswith("lora_unet_down") and key.endswith(ending))


def make_incomplete(state: dict[str, torch.Tensor]) -> None:
    del state[first_key(state, "lora_up.weight")]


def make_nan(state: dict[str, torch.Tensor]) -> None:
    state[first_key(state, "lora_down.weight")].view(-1)[3] = float("nan")


def make_nan_alpha(state: dict[str, torch.Tensor]) -> None:
    state[first_key(state, "alpha")].fill_(float("inf"))


def make_wide(state: dict[str, torch.Tensor]) -> None:
    key = first_key(state, "to_q.lora_down.weight")
    state[key] = torch.cat([state[key], state[key]], dim=1)


def make_another_rank(state: dict[str, torch.Tensor]) -> None:
    key = first_key(state, "to_q.lora_down.weight")
    state[key] = state[key][:-1]


def make_integers(state: dict[str, torch.Tensor]) -> None:
    key = first_key(state, "lora_down.weight")
    state[key] = state[key].to(torch.int64)


def make_another_model(state: dict[str, torch.Tensor]) -> None:
    for key in sorted(state):
        if "down_blocks_0" in key:
            state[key.replace("down_blocks_0", "down_blocks_7")] = state.pop(key)


def make_foreign(state: dict[str, torch.Tensor]) -> None:
    state["some.other.tensor"] = torch.zeros(2)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (make_incomplete, "is not complete: the layer .* has no up weight"),
        (make_nan, "holds NaN or infinite values"),
        (make_nan_alpha, "the alpha of .* is inf"),
        (make_wide, "does not fit this model: .* belongs"),
        (make_another_rank, "does not fit this model: .* belongs"),
        (make_integers, "stored as torch.int64, where floats belong"),
        (make_another_model, "of its .* layers are not in it"),
        (make_foreign, "belong to no known layer"),
    ],
)
def test_a_bad_file_says_why_and_changes_nothing(
    spoil: Callable[[dict[str, torch.Tensor]], None], words: str, studio: PipelineManager, folder: Path, update: Update
) -> None:
    name = spoil.__name__
    state = broken_state(name, folder, update)
    spoil(state)
    save_file(state, folder / f"{name}.safetensors")
    save_kohya(folder / "good.safetensors", update)
    before = studio.generate(with_loras(("good", 0.5))).latents_CHW
    with pytest.raises(LoraError, match=words):
        studio.generate(with_loras(("good", 0.5), (name, 1.0)))
    assert studio.loras.text_state, "the LoRA that acted before still does"
    assert torch.equal(studio.generate(with_loras(("good", 0.5))).latents_CHW, before)


def test_a_file_cut_short_is_said_to_be(studio: PipelineManager, folder: Path, update: Update) -> None:
    save_kohya(folder / "whole.safetensors", update)
    (folder / "cut.safetensors").write_bytes((folder / "whole.safetensors").read_bytes()[:-2])
    with pytest.raises(WeightsFileError, match=r"damaged: it has .* bytes"):
        studio.generate(with_loras(("cut", 1.0)))


def test_an_unknown_name_tells_those_there_are(studio: PipelineManager) -> None:
    with pytest.raises(LoraError, match=r"There is no LoRA named nosuch .*white-ground"):
        studio.generate(with_loras(("nosuch", 1.0)))


def test_an_untrained_lora_is_said_to_change_nothing(studio: PipelineManager, folder: Path, update: Update) -> None:
    save_kohya(folder / "new.safetensors", {key: (down, up * 0) for key, (down, up) in update.items()})
    assert "changes nothing" in " ".join(studio.loras.read("new").notes)


def test_coverage_is_told_in_percent(studio: PipelineManager) -> None:
    assert studio.loras.read("white-ground").changes.startswith(
        "white-ground changes 108 of the U-Net's 133 layers (81"
    )


def test_files_in_half_precision_are_brought_to_the_model_s(
    studio: PipelineManager, folder: Path, update: Update
) -> None:
    save_kohya(folder / "half.safetensors", update)
    lora = studio.loras.read("half")
    assert {t.dtype for p in [*lora.unet.values(), *lora.text_encoder.values()] for t in (p.down, p.up)} == {
        torch.float32
    }


def test_matrices_fit_1_by_1_convolutions(studio: PipelineManager, folder: Path, update: Update) -> None:
    matrices = {
        key: (down.flatten(1), up.flatten(1)) if key[1].endswith("proj_in") else (down, up)
        for key, (down, up) in update.items()
    }
    save_kohya(folder / "as-they-are.safetensors", update)
    save_kohya(folder / "matrices.safetensors", matrices)
    first = studio.generate(with_loras(("as-they-are", 1.0))).latents_CHW
    assert torch.equal(studio.generate(with_loras(("matrices", 1.0))).latents_CHW, first)


def test_a_large_model_keeps_one_set_of_weights(studio: PipelineManager, folder: Path, update: Update) -> None:
    save_kohya(folder / "memory.safetensors", update)
    before = {name: p.data_ptr() for name, p in studio.components.unet.named_parameters()}
    studio.loras.use((LoraChoice(name="memory"),))
    same = {name: p.data_ptr() for name, p in studio.components.unet.named_parameters()} == before
    assert same == (studio.loras.sum_limit_bytes == 0)
    studio.loras.use(())
    assert {name: p.data_ptr() for name, p in studio.components.unet.named_parameters()} == before


def test_no_tensor_of_an_attached_lora_is_on_the_meta_device_or_in_another_precision(
    studio: PipelineManager, folder: Path, update: Update
) -> None:
    save_kohya(folder / "precise.safetensors", update)
    studio.loras.use((LoraChoice(name="precise"),))
    assert_precision(studio.components.modules(), "float32")


def test_the_base_comes_back_where_attaching_fails_in_the_middle(
    studio: PipelineManager, folder: Path, update: Update, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_kohya(folder / "kept.safetensors", update)
    save_kohya(folder / "late.safetensors", update)
    before = studio.generate(with_loras(("kept", 0.5))).latents_CHW
    calls: list[int] = []
    attach = lora_layers._attach

    def fails_once(layer: nn.Linear | nn.Conv2d, stack: lora_layers.Stack, *, small: bool) -> lora_layers.Attached:
        calls.append(1)
        if len(calls) == 20:
            raise RuntimeError("not enough memory")
        return attach(layer, stack, small=small)

    monkeypatch.setattr(lora_layers, "_attach", fails_once)
    with pytest.raises(LoraError, match="could not be attached: not enough memory"):
        studio.loras.use((LoraChoice(name="late"),))
    assert torch.equal(studio.generate(with_loras(("kept", 0.5))).latents_CHW, before)


def test_diffusers_itself_makes_the_same_of_the_file(studio: PipelineManager, folder: Path, update: Update) -> None:
    """The peers' way: peft layers put around the base's by `load_lora_weights`."""
    unet_only = {key: pair for key, pair in update.items() if key[0] == "unet"}
    save_kohya(folder / "peer.safetensors", unet_only)
    ours = studio.generate(with_loras(("peer", 1.0)))
    studio.loras.use(())
    pipe = copy.deepcopy(studio.components.pipeline)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(folder / "peer.safetensors")
    theirs = pipe(
        SETTINGS.prompt,
        negative_prompt="",
        num_inference_steps=SETTINGS.num_inference_steps,
        guidance_scale=SETTINGS.guidance_scale,
        generator=torch.Generator().manual_seed(SETTINGS.seed),
        output_type="latent",
    ).images[0]
    torch.testing.assert_close(ours.latents_CHW, theirs, atol=2e-3, rtol=1e-3)


def test_a_model_of_another_size_refuses_the_lora(studio: PipelineManager, folder: Path) -> None:
    state = {
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight": torch.zeros(4, 320),
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight": torch.zeros(320, 4),
    }
    save_file(state, folder / "sd15.safetensors")
    with pytest.raises(StudioError, match="It was made for a model of another size"):
        studio.loras.read("sd15")


def test_on_a_cpu_only_small_models_get_sums() -> None:
    assert sum_limit(torch.device("cpu"), torch.float32) == SUM_LIMIT_BYTES
    assert sum_limit(torch.device("mps"), torch.float32) == SUM_LIMIT_BYTES


def test_on_cuda_in_float32_a_quarter_of_the_free_memory_may_hold_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_cuda_bytes", lambda device: 8 * 2**30)
    assert sum_limit(torch.device("cuda"), torch.float32) == 2 * 2**30
    assert sum_limit(torch.device("cuda"), torch.float16) == SUM_LIMIT_BYTES
    monkeypatch.setattr(memory, "free_cuda_bytes", lambda device: 2**20)
    assert sum_limit(torch.device("cuda"), torch.float32) == SUM_LIMIT_BYTES


def test_a_lora_that_acted_before_acts_again_without_a_new_sum(
    studio: PipelineManager, update: Update, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_kohya(folder / "again.safetensors", update)
    if studio.loras.sum_limit_bytes == 0:
        pytest.skip("hooks")
    images = [studio.generate(with_loras(("again", 0.8)))]
    base = studio.generate(SETTINGS)

    def no_sum(*_: object) -> None:
        pytest.fail("a sum was computed again")

    with monkeypatch.context() as patched:
        patched.setattr(lora_layers, "changed_weight", no_sum)
        images.append(studio.generate(with_loras(("again", 0.8))))
        assert np.array_equal(studio.generate(SETTINGS).picture, base.picture)
    assert np.array_equal(*(image.picture for image in images))
    assert not np.array_equal(images[0].picture, base.picture)
    images.append(studio.generate(with_loras(("again", 0.5))))
    assert not np.array_equal(images[1].picture, images[2].picture)


def test_sums_that_do_not_act_are_kept_while_there_is_room(
    studio: PipelineManager, update: Update, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_kohya(folder / "room.safetensors", update)
    if studio.loras.sum_limit_bytes == 0:
        pytest.skip("hooks")
    for strength in (0.1, 0.2, 0.3):
        studio.loras.use((LoraChoice(name="room", strength=strength),))
    studio.loras.use(())
    num_bytes = sum(one.num_bytes for one in list(studio.loras._sums.values())[-1])
    monkeypatch.setattr(lora_layers, "SUM_LIMIT_BYTES", 2 * num_bytes)
    studio.loras.use((LoraChoice(name="room", strength=0.4),))
    studio.loras.use(())
    assert [strength for ((__, strength),) in studio.loras._sums] == [0.3, 0.4]


def test_a_sum_does_not_fit_a_layer_that_is_in_another_precision_now() -> None:
    layer = torch.nn.Linear(4, 4)
    weights = LayerWeights(down=torch.ones(1, 4), up=torch.ones(4, 1), alpha=1.0)
    attached = WeightSum(layer, [(weights, 1.0)])
    attached.remove()
    assert attached.fits()
    layer.half()
    assert not attached.fits()
