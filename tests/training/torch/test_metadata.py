"""What the finished file tells others: every word that A1111, kohya's tools, Forge and Civitai read."""

import base64
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from PIL import Image

from studio import __version__
from studio.core.paths import UserData
from studio.datasets.snapshot import Snapshot
from studio.loras.library import THUMBNAIL, THUMBNAIL_LIMIT, read_card
from studio.loras.weights_file import WeightsHeader, read_header
from studio.training.begin import begin_run
from studio.training.folder import RunFolder
from studio.training.presets import settings_from
from studio.training.settings import TrainingSettings
from studio.training.torch.data import make_training_set
from studio.training.torch.finish import file_metadata, with_thumbnail
from studio.training.torch.run import train_run
from tests.faults import conftest as faults
from tests.training.told_runs import make_plan
from tests.training.torch.parts import CAPTIONS, save_picture, settings_of

LEAST = ("ss_v2", "ss_base_model_version", "ss_network_module", "ss_network_dim", "ss_network_alpha", "ss_network_args")
READ_BY_PAGES = (
    *("ss_output_name", "ss_sd_model_name", "ss_resolution", "ss_clip_skip", "ss_num_train_images"),
    *("ss_tag_frequency", "ss_bucket_info", "ss_dataset_dirs", "ss_training_started_at", "sshs_model_hash"),
    "modelspec.architecture",
)
MODELSPEC = tuple(
    f"modelspec.{name}"
    for name in (
        *("sai_model_spec", "implementation", "title", "resolution"),
        *("date", "trigger_phrase", "thumbnail", "hash_sha256"),
    )
)
BEGAN = datetime(2026, 3, 1, 22, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Finished:
    run: RunFolder
    file: WeightsHeader
    own_file: Path


@pytest.fixture(scope="module")
def finished(
    tiny_model: Path, small_dataset: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    """A short run to its end."""
    folder = tmp_path_factory.mktemp("metadata")
    values = {
        **faults.SETTINGS,
        "name": "weiße Schuhe 中文",
        "trigger_word": "shoestyle",
        "dataset": str(small_dataset(folder)),
        "model": str(tiny_model),
        "max_train_steps": 2,
        "num_validation_images": 1,
        "validation_inference_steps": 2,
        "gradient_accumulation_steps": 3,
    }
    user_data = UserData(folder / "user_data")
    run = begin_run(settings_from(None, values, ()), user_data)
    assert train_run(run, user_data) == "finished"
    name = f"{values['name']}.safetensors"
    return Finished(run, read_header(run.root / name), user_data.loras / name)


def test_all_words_are_there_as_text(finished: Finished) -> None:
    said = finished.file.metadata
    for name in (*LEAST, *READ_BY_PAGES, *MODELSPEC):
        assert isinstance(said[name], str), name
        assert said[name], name


def test_they_say_what_was_trained(finished: Finished) -> None:
    said = finished.file.metadata
    assert (said["ss_v2"], said["ss_base_model_version"]) == ("False", "sd_v1")
    assert said["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert said["ss_network_module"] == "networks.lora"
    assert (said["ss_network_dim"], said["ss_network_alpha"]) == ("2", "4")
    assert json.loads(said["ss_network_args"]) == {"conv_dim": "2", "conv_alpha": "4"}
    assert said["ss_output_name"] == said["modelspec.title"] == finished.file.path.stem
    assert said["ss_sd_model_name"] == "model"  # the folder's name, not where it lies
    assert (said["ss_resolution"], said["modelspec.resolution"]) == ("(64, 64)", "64x64")
    assert (said["ss_max_train_steps"], said["ss_steps"], said["ss_total_batch_size"]) == ("2", "2", "6")
    assert said["modelspec.trigger_phrase"] == "shoestyle"
    assert said["lora_studio.version"] == __version__
    assert datetime.fromtimestamp(int(said["ss_training_started_at"]), UTC).year >= 2025


def test_the_checksums_are_of_what_follows_the_header(finished: Finished) -> None:
    content = finished.file.path.read_bytes()
    digest = hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()
    assert finished.file.metadata["sshs_model_hash"] == digest
    assert finished.file.metadata["modelspec.hash_sha256"] == f"0x{digest}"


def test_tags_are_counted_over_the_pictures_that_were_trained_on(finished: Finished) -> None:
    tags = json.loads(finished.file.metadata["ss_tag_frequency"])["dataset"]
    trained = int(finished.file.metadata["ss_num_train_images"])
    assert tags["shoestyle"] == trained == 6  # two of eight are held out
    assert sum(tags[name] for name in tags if name.startswith("a ")) == trained
    assert tags["white ground"] >= 3
    assert [*tags.values()] == sorted(tags.values(), reverse=True)
    dirs = json.loads(finished.file.metadata["ss_dataset_dirs"])
    assert sum(entry["img_count"] for entry in dirs.values()) == trained
    buckets = json.loads(finished.file.metadata["ss_bucket_info"])["buckets"]
    assert sum(bucket["count"] for bucket in buckets.values()) == trained
    assert all(len(bucket["resolution"]) == 2 for bucket in buckets.values())


def test_the_thumbnail_is_the_last_picture_and_the_library_shows_it(finished: Finished) -> None:
    url = finished.file.metadata["modelspec.thumbnail"]
    assert THUMBNAIL.fullmatch(url)
    assert len(url) <= THUMBNAIL_LIMIT
    picture = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    last = Image.open(next((finished.run.samples / "step-000002").glob("*.png")))
    assert picture.size == last.size
    differences = [abs(a - b) for a, b in zip(picture.convert("L").tobytes(), last.convert("L").tobytes(), strict=True)]
    assert sum(differences) / len(differences) < 12
    for path in (finished.file.path, finished.own_file):
        card = read_card(path.stem, path)
        assert (card.problem or "") == ""
        assert card.thumbnail == url
        assert (card.title, card.trigger, card.base_model, card.rank) == (path.stem, "shoestyle", "model", 2)


def test_diffusers_file_tells_the_same(finished: Finished) -> None:
    other = read_header(finished.run.root / "pytorch_lora_weights.safetensors").metadata
    said = {k: v for k, v in finished.file.metadata.items() if k not in ("sshs_model_hash", "modelspec.hash_sha256")}
    assert {name: other[name] for name in said} == said


def test_a_checkpoint_tells_its_step(finished: Finished) -> None:
    assert read_header(finished.run.checkpoints / "step-000001" / "lora.safetensors").metadata["ss_steps"] == "1"


def reported(
    snapshot: Snapshot,
    settings: TrainingSettings,
    *,
    prediction_type: str = "epsilon",
    started_at: datetime = BEGAN,
    prior: Snapshot | None = None,
    model: str = "shoes-demo",
) -> dict[str, str]:
    data = make_training_set(snapshot, settings, resolution=64, prior=prior)
    plan = make_plan(num_pictures=len(data.items)).model_copy(update={"model": model})
    return file_metadata(settings, plan, data, prediction_type=prediction_type, step=3, started_at=started_at)


def test_what_is_counted_is_counted_with_repeats_and_regularisation_pictures_apart(snapshot: Snapshot) -> None:
    said = reported(snapshot, settings_of(), prior=snapshot)
    assert (said["ss_num_train_images"], said["ss_num_reg_images"]) == ("8", "8")
    tags = json.loads(said["ss_tag_frequency"])["dataset"]
    expected = [part.strip() for caption in CAPTIONS for part in caption.split(",")]
    assert tags == {part: expected.count(part) for part in expected}


def test_captions_that_are_not_ascii_are_readable_in_the_header(snapshot: Snapshot) -> None:
    said = reported(snapshot, settings_of(trigger_word="Schühchen 鞋"))
    assert '"Schühchen 鞋": 8' in said["ss_tag_frequency"]


@pytest.mark.parametrize(("prediction_type", "word"), [("epsilon", "epsilon"), ("v_prediction", "v")])
def test_what_the_model_predicts_is_told_also_where_settings_leave_it_to_the_model(
    prediction_type: str, word: str, snapshot: Snapshot
) -> None:
    said = reported(snapshot, settings_of(prediction_type="auto"), prediction_type=prediction_type)
    assert said["modelspec.prediction_type"] == word


def test_the_same_run_tells_the_same_on_any_day_and_in_any_place(snapshot: Snapshot) -> None:
    there = reported(snapshot, settings_of(), started_at=BEGAN.astimezone(timezone(timedelta(hours=9))))
    assert reported(snapshot, settings_of()) == there
    assert there["modelspec.date"] == "2026-03-01"


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("/home/a person/models/my model", "my model"),
        ("/models/dream.safetensors", "dream.safetensors"),
        ("shoes-demo", "shoes-demo"),
        ("owner/name@main", "owner/name@main"),
    ],
)
def test_where_a_model_lay_is_not_told_to_others(model: str, name: str, snapshot: Snapshot) -> None:
    assert reported(snapshot, settings_of(), model=model)["ss_sd_model_name"] == name


def test_layers_without_convolutions_have_no_arguments_of_theirs(snapshot: Snapshot) -> None:
    said = reported(snapshot, settings_of(targets="attention + feed-forward"))
    assert json.loads(said["ss_network_args"]) == {}
    assert (said["ss_text_encoder_lr"], said["ss_min_snr_gamma"], said["ss_noise_offset"]) == ("None", "None", "None")


def test_layers_with_some_convolutions_tell_their_rank(snapshot: Snapshot) -> None:
    said = reported(snapshot, settings_of(targets="attention + feed-forward + resnets"))
    assert set(json.loads(said["ss_network_args"])) == {"conv_dim", "conv_alpha"}


def test_the_loss_is_told_in_kohyas_words(snapshot: Snapshot) -> None:
    names = ("ss_loss_type", "ss_huber_c", "ss_huber_schedule")
    said = reported(snapshot, settings_of())
    assert tuple(said[name] for name in names) == ("l2", "0.1", "snr")
    said = reported(snapshot, settings_of(loss_type="smooth_l1", huber_c=0.25, huber_schedule="exponential"))
    assert tuple(said[name] for name in names) == ("smooth_l1", "0.25", "exponential")


@pytest.mark.parametrize("size", [(2048, 1024), (64, 64), (300, 900)])
def test_a_thumbnail_is_small_and_keeps_its_shape(size: tuple[int, int], tmp_path: Path) -> None:
    save_picture(tmp_path / "a.png", size=size)
    url = with_thumbnail({"a": "b"}, tmp_path / "a.png")["modelspec.thumbnail"]
    picture = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    assert max(picture.size) == min(256, max(size))
    assert picture.width / picture.height == pytest.approx(size[0] / size[1], abs=0.02)
    assert THUMBNAIL.fullmatch(url)


def test_without_a_picture_there_is_no_thumbnail() -> None:
    assert with_thumbnail({"a": "b"}, None) == {"a": "b"}
