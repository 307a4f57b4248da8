"""What comes out of a batch: an imagefolder, files with their settings inside, shards, sheets, the report."""

import hashlib
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset
from PIL import Image

from studio.batches.folder import BatchFolder
from studio.batches.outputs import read_provenance, write_shards
from studio.batches.plan import open_plan
from studio.batches.torch.image import BATCH_KEY
from studio.core.settings import LoraChoice
from studio.datasets.reading import read_source
from studio.datasets.source import LayoutChoice
from studio.images.files import read_picture_text
from tests.batches.torch.made import lines, made, rows

LORA = {"loras": [{"name": "white-ground", "strength": 0.5}]}


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> BatchFolder:
    """Six images with everything that can come out."""
    return made(
        tmp_path_factory.mktemp("batch"),
        generation=LORA,
        text_sidecars=True,
        pictures_per_shard=4,
        grid_x="colour",
        grid_y="type",
    )


def test_datasets_reads_it_as_an_imagefolder_with_captions_and_columns(batch: BatchFolder, tmp_path: Path) -> None:
    read = load_dataset("imagefolder", data_dir=str(batch.dataset), cache_dir=str(tmp_path), split="train")
    assert len(read) == 6
    assert read[0]["text"] == "a photo of red boots"
    assert (read[0]["colour"], read[5]["type"]) == ("red", "sneakers")
    assert read[0]["image"].size == (64, 64)


def test_the_studio_reads_it_as_a_dataset_with_nothing_left_over(batch: BatchFolder) -> None:
    source = read_source(batch.dataset, LayoutChoice())
    assert [picture.caption for picture in source.pictures][:1] == ["a photo of red boots"]
    assert len(source.pictures) == 6


def test_captions_are_the_prompts_words_without_tags_and_weights(batch: BatchFolder) -> None:
    assert [line["text"] for line in lines(batch)][:2] == ["a photo of red boots", "a photo of red sneakers"]
    assert batch.picture(1, "png").with_suffix(".txt").read_text(encoding="utf-8") == "a photo of red sneakers\n"


def test_a_file_carries_what_is_needed_to_make_it_again(batch: BatchFolder) -> None:
    text = read_picture_text(batch.picture(1, "png"))
    assert text.settings.seed == 8
    assert text.settings.num_inference_steps == 2
    assert text.settings.loras == (LoraChoice(name="white-ground", strength=0.5),)
    with Image.open(batch.picture(1, "png")) as picture:
        reported = json.loads(picture.info[BATCH_KEY])
    assert reported["attributes"] == {"colour": "red", "type": "sneakers"}
    assert {check["name"] for check in reported["checks"]} == {"latents", "decoded", "image"}
    assert not {"made_at", "timings"} & set(reported)


@pytest.mark.parametrize("picture_format", ["jpeg", "webp"])
def test_jpeg_and_webp_carry_their_settings_too(picture_format: str, tmp_path: Path) -> None:
    folder = made(tmp_path, picture_format=picture_format, total=1)
    file = folder.root / rows(folder)[0].file
    assert read_picture_text(file).settings.seed == 7
    assert hashlib.sha256(file.read_bytes()).hexdigest() == rows(folder)[0].sha256
    assert lines(folder)[0]["file_name"] == f"0000/{file.name}"


def test_shards_hold_every_picture_once_and_the_manifest_is_true(batch: BatchFolder) -> None:
    manifest = json.loads((batch.shards / "shards.json").read_bytes())["shards"]
    assert [shard["num_pictures"] for shard in manifest] == [4, 2]
    names = []
    for shard in manifest:
        path = batch.shards / shard["file"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == shard["sha256"]
        with tarfile.open(path) as tar:
            names += [member.name for member in tar]
    assert names == [f"{i:07}{ending}" for i in range(6) for ending in (".png", ".json")]


def test_shards_written_again_are_the_same_and_old_ones_go(batch: BatchFolder) -> None:
    before = (batch.shards / "00000.tar").read_bytes()
    (batch.shards / "00009.tar").write_bytes(b"of another time")
    write_shards(batch, pictures_per_shard=4)
    assert (batch.shards / "00000.tar").read_bytes() == before
    assert sorted(path.name for path in batch.shards.glob("*.tar")) == ["00000.tar", "00001.tar"]


def test_the_grid_has_a_cell_for_every_pair_of_values(batch: BatchFolder) -> None:
    with Image.open(batch.grid) as grid:
        pixels = np.asarray(grid.convert("RGB"))
    cell, margin, label = 256, 12, 44
    for row in range(2):
        for column in range(3):
            top = margin + row * (2 * label + cell + margin) + 2 * label
            left = margin + column * (cell + margin)
            shown = pixels[top : top + cell, left : left + cell]
            expected = Image.open(batch.picture(column * 2 + row, "png")).convert("RGB").resize((256, 256), 0)
            assert np.array_equal(shown, np.asarray(expected))


def test_the_lineage_says_what_drew_it(batch: BatchFolder) -> None:
    provenance = read_provenance(batch.dataset)
    assert provenance is not None
    assert provenance.sentence("shoes").startswith(
        "Synthetic: generated by shoes-demo with the LoRA white-ground at 0.5 (step 400"
    )
    assert provenance.plan_sha256 == open_plan(batch.plan).digest
    assert "synthetic" in (batch.dataset / "README.md").read_text(encoding="utf-8")


def test_the_report_counts_what_was_made_of_each_value(batch: BatchFolder) -> None:
    report = batch.report.read_text(encoding="utf-8")
    assert "**6 of 6 images are made and valid.**" in report
    assert "| red | 2 | 2 |" in report
    assert "| boots | 3 | 3 |" in report
    assert "No images were rejected." in report
    assert "White backgrounds:" in report


def test_the_contact_sheet_shows_them(batch: BatchFolder) -> None:
    with Image.open(batch.contact_sheet) as sheet:
        assert sheet.width > 6 * 144
