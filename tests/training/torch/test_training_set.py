"""What is trained on: sizes, crops, captions, masks, regularisation images, and what is held out."""

import hashlib
import unicodedata
from pathlib import Path
from typing import Literal

import pytest
from PIL import Image

from studio.core.errors import DatasetError, SettingsError, TrainingError
from studio.datasets.rows import Bucket
from studio.datasets.snapshot import MaskFile, Snapshot, SnapshotEntry, read_snapshot, with_masks, write_snapshot
from studio.datasets.source import MadeFrom, Variety
from studio.training.folder import RunFolder
from studio.training.settings import TrainingSettings
from studio.training.torch.caches import LatentCache
from studio.training.torch.data import TrainingItem, TrainingSet, make_training_set
from studio.training.torch.run import read_data
from studio.training.variants import Box
from tests.training.torch.parts import save_picture, settings_of, snapshot_of, snapshot_of_sizes

SQUARE, WIDE, TALL = (80, 80), (200, 100), (100, 200)


def make_set(
    snapshot: Snapshot, *, resolution: int = 64, prior: Snapshot | None = None, **changes: object
) -> TrainingSet:
    return make_training_set(snapshot, settings_of(**changes), resolution=resolution, prior=prior)


def with_entries(snapshot: Snapshot, entries: list[SnapshotEntry]) -> Snapshot:
    return Snapshot(snapshot.header, tuple(entries))


def captions(snapshot: Snapshot, **changes: object) -> list[str]:
    return [item.caption for item in make_set(snapshot, **changes).items]


def white_mask(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), 255).save(path)
    return path


def crops_of(item: TrainingItem) -> tuple[Box, ...]:
    return tuple(variant.crop for variant in item.variants)


def test_with_buckets_pictures_keep_their_shape() -> None:
    square, wide, tall = make_set(snapshot_of_sizes([SQUARE, WIDE, TALL])).items
    assert square.bucket == Bucket(64, 64)
    assert wide.bucket.width > wide.bucket.height
    assert tall.bucket == Bucket(wide.bucket.height, wide.bucket.width)
    for item in (square, wide, tall):
        assert 0.6 * 64**2 < item.bucket.width * item.bucket.height <= 64**2


def test_without_buckets_every_picture_is_cut_square() -> None:
    for item in make_set(snapshot_of_sizes([SQUARE, WIDE, TALL]), use_buckets=False).items:
        assert item.bucket == Bucket(64, 64)
        ((left, top, right, bottom),) = crops_of(item)
        assert right - left == bottom - top == min(item.width, item.height)


@pytest.mark.parametrize("resolution", [64, 128, 256])
def test_resolution_is_the_side_of_a_square(resolution: int) -> None:
    (item,) = make_set(snapshot_of_sizes([(1000, 1000)]), resolution=resolution).items
    assert item.bucket == Bucket(resolution, resolution)


def test_a_centre_crop_leaves_as_much_on_either_side() -> None:
    (item,) = make_set(snapshot_of_sizes([WIDE]), use_buckets=False).items
    assert crops_of(item) == ((50, 0, 150, 100),)


@pytest.mark.parametrize("crop", ["centre", "random"])
@pytest.mark.parametrize(("focus", "left"), [((0.0, 0.5), 0), ((0.3, 0.9), 10), ((0.5, 0.5), 50), ((1.0, 0.0), 100)])
def test_a_crop_that_a_person_moved_is_what_is_learned(crop: str, focus: tuple[float, float], left: int) -> None:
    snapshot = snapshot_of_sizes([WIDE])
    moved = with_entries(snapshot, [entry.model_copy(update={"focus": focus}) for entry in snapshot.entries])
    (item,) = make_set(moved, crop=crop, use_buckets=False).items
    assert crops_of(item) == ((left, 0, left + 100, 100),)


def test_random_crops_are_several_windows_inside_the_picture() -> None:
    for item in make_set(snapshot_of_sizes([WIDE, TALL]), crop="random", use_buckets=False).items:
        assert len(crops_of(item)) == 4
        assert len(set(crops_of(item))) == 4
        for left, top, right, bottom in crops_of(item):
            assert 0 <= left < right <= item.width
            assert 0 <= top < bottom <= item.height
            assert (right - left, bottom - top) == (100, 100)


def test_a_random_crop_has_the_shape_of_its_bucket() -> None:
    (item,) = make_set(snapshot_of_sizes([(230, 100)]), crop="random").items
    for left, top, right, bottom in crops_of(item):
        assert (right - left) / (bottom - top) == pytest.approx(item.bucket.width / item.bucket.height, rel=0.02)


def test_a_picture_that_is_not_cut_has_one_crop_alone() -> None:
    (item,) = make_set(snapshot_of_sizes([SQUARE]), crop="random").items
    assert crops_of(item) == ((0, 0, 80, 80),)


def test_random_crops_are_the_same_in_every_run_and_others_for_other_pictures() -> None:
    first, other = make_set(snapshot_of_sizes([WIDE, WIDE]), crop="random", use_buckets=False).items
    again, _ = make_set(snapshot_of_sizes([WIDE, WIDE]), crop="random", use_buckets=False, seed=7).items
    assert crops_of(first) == crops_of(again)
    assert crops_of(first) != crops_of(other)


def test_where_the_scale_cannot_vary_it_is_said() -> None:
    snapshot = snapshot_of_sizes([(200, 200), (64, 64), (64, 70)])
    notes = make_set(snapshot, scale_jitter_percent=20).notes
    assert any(note.startswith("The scale does not vary in 2 images: the crop was moved by hand") for note in notes)
    assert not any("scale" in note for note in make_set(snapshot).notes)
    large = snapshot_of_sizes([(200, 200)] * 2)
    assert not any("scale" in note for note in make_set(large, scale_jitter_percent=20).notes)


def test_held_out_images_are_seen_in_one_way() -> None:
    data = make_set(
        snapshot_of_sizes([(200, 200)] * 8), scale_jitter_percent=20, horizontal_flip=True, held_out_percent=25
    )
    assert [len(item.variants) for item in data.held_out] == [1] * 2
    assert [len(item.variants) for item in data.items] == [8] * 6


def test_the_trigger_word_stands_before_every_caption() -> None:
    snapshot = snapshot_of_sizes([SQUARE, SQUARE])
    assert captions(snapshot) == ["caption 0", "caption 1"]
    assert captions(snapshot, trigger_word=" sks ") == ["sks, caption 0", "sks, caption 1"]


def test_a_picture_without_a_caption_has_the_trigger_word_alone() -> None:
    snapshot = snapshot_of_sizes([SQUARE])
    bare = with_entries(snapshot, [snapshot.entries[0].model_copy(update={"caption": ""})])
    assert captions(bare, trigger_word="sks") == ["sks"]
    assert captions(bare) == [""]


def test_repeats_count_in_an_epoch() -> None:
    data = make_set(snapshot_of_sizes([SQUARE, SQUARE], repeats=(1, 4)))
    assert [item.repeats for item in data.items] == [1, 4]
    assert data.pictures_per_epoch == 5


def test_what_transparency_is_laid_on_comes_from_the_recipe() -> None:
    snapshot = snapshot_of_sizes([SQUARE])
    recipe = snapshot.header.recipe.model_copy(update={"background": "#102030"})
    grey = Snapshot(snapshot.header.model_copy(update={"recipe": recipe}), snapshot.entries)
    assert make_set(grey).items[0].background == "#102030"


# What is held out


def keys(data: TrainingSet) -> tuple[set[str], set[str]]:
    return {item.key for item in data.items}, {item.key for item in data.held_out}


@pytest.mark.parametrize(
    ("pictures", "percent", "number"),
    [(100, 5, 5), (100, 0, 0), (40, 50, 20), (10, 1, 1), (9, 1, 0), (9, 10, 1), (2, 50, 1), (1, 50, 0)],
)
def test_so_many_are_held_out(pictures: int, percent: float, number: int) -> None:
    data = make_set(snapshot_of_sizes([SQUARE] * pictures), held_out_percent=percent)
    trained, held_out = keys(data)
    assert len(held_out) == number
    assert len(trained) == pictures - number
    assert not trained & held_out


def test_the_seed_does_not_choose_what_is_held_out() -> None:
    snapshot = snapshot_of_sizes([SQUARE] * 50)
    assert keys(make_set(snapshot, held_out_percent=20)) == keys(make_set(snapshot, held_out_percent=20, seed=3))


def test_more_percent_hold_out_the_same_and_others() -> None:
    snapshot = snapshot_of_sizes([SQUARE] * 50)
    assert keys(make_set(snapshot, held_out_percent=10))[1] < keys(make_set(snapshot, held_out_percent=20))[1]


def test_the_order_of_a_dataset_does_not_choose_what_is_held_out() -> None:
    snapshot = snapshot_of_sizes([SQUARE] * 50)
    turned = with_entries(snapshot, [*reversed(snapshot.entries)])
    assert keys(make_set(turned, held_out_percent=20)) == keys(make_set(snapshot, held_out_percent=20))


def test_new_pictures_move_few_of_the_old_ones() -> None:
    """Old images keep their turn: what is held out of them grows or shrinks by its last ones, by chance alone."""
    whole = snapshot_of_sizes([SQUARE] * 400)
    before = keys(make_set(with_entries(whole, [*whole.entries[:200]]), held_out_percent=10))[1]
    for number in range(201, 400, 20):
        grown = make_set(with_entries(whole, [*whole.entries[:number]]), held_out_percent=10)
        after = {key for key in keys(grown)[1] if int(key[:4]) < 200}
        assert after <= before or before <= after
        assert len(after ^ before) <= 5


def test_copies_of_a_picture_stay_on_one_side() -> None:
    snapshot = snapshot_of_sizes([SQUARE] * 20)
    copies = [
        entry.model_copy(update={"key": f"copy of {entry.key}", "caption": "another caption"})
        for entry in snapshot.entries
    ]
    doubled = with_entries(snapshot, [*snapshot.entries, *copies])
    for percent in (3, 10, 25, 50):
        data = make_set(doubled, held_out_percent=percent)
        assert data.held_out
        assert not {item.sha256 for item in data.items} & {item.sha256 for item in data.held_out}
        assert len(data.items) + len(data.held_out) == 40


def test_where_all_pictures_are_copies_of_one_none_is_held_out() -> None:
    snapshot = snapshot_of_sizes([SQUARE])
    copies = [snapshot.entries[0].model_copy(update={"key": f"{i}.png"}) for i in range(12)]
    data = make_set(with_entries(snapshot, copies), held_out_percent=10)
    assert (len(data.items), data.held_out) == (12, ())
    assert [note for note in data.notes if note.startswith("There is one image to learn from")]
    two = with_entries(snapshot, snapshot_of_sizes([SQUARE] * 2).entries)
    assert not [note for note in make_set(two).notes if note.startswith("There is one image")]


def test_the_notes_say_how_many_are_on_either_side() -> None:
    data = make_set(snapshot_of_sizes([SQUARE] * 20), held_out_percent=10)
    assert data.notes == ("18 images to train on, 2 held out.",)


# Regularisation images


def prior_of(number: int) -> Snapshot:
    """With other bytes than `snapshot_of_sizes` gives otherwise."""
    snapshot = snapshot_of_sizes([SQUARE] * number)
    return with_entries(
        snapshot,
        [
            entry.model_copy(
                update={"key": f"prior {entry.key}", "sha256": hashlib.sha256(entry.key.encode()).hexdigest()}
            )
            for entry in snapshot.entries
        ],
    )


@pytest.mark.parametrize("number", [1, 3, 7, 8, 20])
def test_one_regularisation_picture_is_mixed_in_for_each_of_ours(number: int) -> None:
    snapshot = snapshot_of_sizes([SQUARE] * 4, repeats=(1, 1, 2, 3))
    data = make_set(snapshot, prior=prior_of(number), prior_loss_weight=0.3)
    own = [item for item in data.items if not item.is_prior]
    mixed = [item for item in data.items if item.is_prior]
    assert sum(item.repeats for item in own) == sum(item.repeats for item in mixed) == 7
    assert max(item.repeats for item in mixed) - min(item.repeats for item in mixed) <= 1
    assert {item.weight for item in own} == {1.0}
    assert {item.weight for item in mixed} == {0.3}


def test_regularisation_pictures_have_no_trigger_word_and_are_not_held_out() -> None:
    data = make_set(
        snapshot_of_sizes([SQUARE] * 20), prior=prior_of(20), trigger_word="sks", held_out_percent=10, dataset="d"
    )
    assert {item.caption.startswith("sks, ") for item in data.items if not item.is_prior} == {True}
    assert {item.caption.startswith("sks") for item in data.items if item.is_prior} == {False}
    assert not any(item.is_prior for item in data.held_out)
    assert sum(item.is_prior for item in data.items) == 18


def test_with_a_weight_of_one_they_are_still_told_apart() -> None:
    data = make_set(snapshot_of_sizes([SQUARE] * 3), prior=prior_of(3))
    assert [item.is_prior for item in data.items] == [False] * 3 + [True] * 3


# Masks


def masks_of(snapshot: Snapshot, folder: Path) -> list[Path | None]:
    items = make_training_set(with_masks(snapshot, str(folder)), settings_of(), resolution=64).items
    return [Path(item.mask.path) if item.mask else None for item in items]


def named(*names: str) -> Snapshot:
    snapshot = snapshot_of_sizes([SQUARE] * len(names))
    return with_entries(
        snapshot, [e.model_copy(update={"key": name}) for e, name in zip(snapshot.entries, names, strict=True)]
    )


def test_a_mask_belongs_to_the_picture_of_its_name(tmp_path: Path) -> None:
    first = white_mask(tmp_path, "0000.png")
    third = white_mask(tmp_path, "0002.jpg")
    snapshot = with_masks(snapshot_of_sizes([SQUARE] * 4), str(tmp_path))
    assert masks_of(snapshot, tmp_path) == [first, None, third, None]
    assert "2 have a mask; 2 have none and are learned whole." in make_set(snapshot).notes


@pytest.mark.parametrize(
    "mask",
    [
        *("café.png", "café.JPG", "café.bmp", "café.tiff", "café.gif", "café.webp"),
        *("café-masklabel.png", "café_mask.png", "café-mask.png", "café_MASK.png"),
    ],
)
@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_masks_name_may_be_marked_and_in_either_form_of_unicode(
    mask: str, forms: tuple[Literal["NFC", "NFD"], Literal["NFC", "NFD"]], tmp_path: Path
) -> None:
    path = white_mask(tmp_path, unicodedata.normalize(forms[0], mask))
    assert masks_of(named(unicodedata.normalize(forms[1], "10_x/café.jpg")), tmp_path) == [path]


def test_an_image_whose_own_name_ends_in_mask_has_a_mask_of_its_name(tmp_path: Path) -> None:
    own = white_mask(tmp_path, "gas_mask.png")
    assert masks_of(named("gas_mask.jpg", "b.jpg"), tmp_path) == [own, None]


def test_a_mask_in_a_folder_of_the_same_name_is_preferred(tmp_path: Path) -> None:
    own, flat = white_mask(tmp_path, "a/0000.png"), white_mask(tmp_path, "0001.png")
    white_mask(tmp_path, "0000.png")
    assert masks_of(named("a/0000.png", "a/0001.png"), tmp_path) == [own, flat]


def test_an_image_is_not_its_own_mask(tmp_path: Path) -> None:
    """Masks may lie beside the images, where their names are marked."""
    save_picture(tmp_path / "a.png")
    mask = white_mask(tmp_path, "a-masklabel.png")
    snapshot = snapshot_of(tmp_path)
    assert [entry.key for entry in snapshot.entries] == ["a-masklabel.png", "a.png"]
    assert masks_of(snapshot, tmp_path) == [None, mask]


def test_of_two_masks_for_one_picture_one_is_used_and_both_are_named(tmp_path: Path) -> None:
    used = white_mask(tmp_path, "a.png")
    white_mask(tmp_path, "a.jpg")
    white_mask(tmp_path, "a_mask.png")
    snapshot = with_masks(named("a.webp"), str(tmp_path))
    assert masks_of(snapshot, tmp_path) == [used]
    said = "a.webp has 3 masks: a.png is used, a.jpg, a_mask.png not. Delete those that are wrong."
    assert said in make_set(snapshot).notes


def test_masks_that_fit_no_picture_are_an_error(tmp_path: Path) -> None:
    white_mask(tmp_path, "other.png")
    with pytest.raises(DatasetError, match=r"No mask in .* has the name of an image\. .* shoe-masklabel\.png"):
        with_masks(named("shoe.jpg"), str(tmp_path))


def masked_run(tmp_path: Path, *, with_hashes: bool = True) -> tuple[RunFolder, TrainingSettings, Path]:
    """A run of one image with a mask, as it is kept before its first step."""
    save_picture(tmp_path / "own" / "a.png")
    mask = white_mask(tmp_path / "masks", "a.png")
    run, snapshot = RunFolder(tmp_path / "run"), snapshot_of(tmp_path / "own")
    write_snapshot(run.dataset, with_masks(snapshot, str(mask.parent)) if with_hashes else snapshot)
    return run, settings_of(mask_folder=str(mask.parent)), mask


def test_a_mask_that_changed_or_went_is_named_on_resume(tmp_path: Path) -> None:
    run, settings, mask = masked_run(tmp_path)
    wanted = hashlib.sha256(mask.read_bytes()).hexdigest()
    (entry,) = read_data(run, settings, use_snapshot=False).snapshot.entries
    assert entry.mask == MaskFile(path=str(mask), sha256=wanted)
    Image.new("L", (8, 8), 0).save(mask)
    with pytest.raises(TrainingError, match=r"was changed since .*The mask of a\.png is another file than"):
        read_data(run, settings, use_snapshot=False)
    mask.unlink()
    with pytest.raises(TrainingError, match=r"was changed since .*The mask of a\.png can no longer be read \(No such"):
        read_data(run, settings, use_snapshot=False)
    assert read_data(run, settings, use_snapshot=True).snapshot.entries == (entry,)


def test_a_run_of_before_masks_were_hashed_goes_on_with_its_digest(tmp_path: Path) -> None:
    run, settings, mask = masked_run(tmp_path, with_hashes=False)
    assert b"sha256" in run.dataset.read_bytes()
    assert b'"mask"' not in run.dataset.read_bytes()  # so the digest is over the same lines as before
    snapshot = read_data(run, settings, use_snapshot=False).snapshot
    assert [entry.mask and entry.mask.path for entry in snapshot.entries] == [str(mask)]
    assert snapshot.header == read_snapshot(run.dataset).header


def test_without_a_mask_folder_a_snapshot_stays_the_same() -> None:
    snapshot = named("a.png")
    assert with_masks(snapshot, "") is snapshot


def test_a_mask_that_leads_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    outside = white_mask(tmp_path, "outside/0000.png")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/0000.png").symlink_to(outside)
    with pytest.raises(DatasetError, match="is a link that leads out of mask_folder"):
        with_masks(named("0000.png"), str(tmp_path / "masks"))


def test_a_mask_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"mask_folder must be a folder, got '.*nowhere'"):
        with_masks(named("a.png"), str(tmp_path / "nowhere"))


def test_a_mask_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "0000.txt").write_text("no image")
    (tmp_path / "._0000.png").write_bytes(b"of a Mac")
    with pytest.raises(DatasetError, match="holds no image"):
        with_masks(named("0000.png"), str(tmp_path))


def test_held_out_images_are_left_out_of_the_regularisation_images() -> None:
    snapshot = snapshot_of_sizes([SQUARE] * 20)
    held_out = {item.sha256 for item in make_set(snapshot, held_out_percent=20).held_out}
    copies = [entry.model_copy(update={"key": f"reg {entry.key}"}) for entry in snapshot.entries]
    data = make_set(snapshot, prior=with_entries(snapshot, copies), held_out_percent=20)
    assert len(held_out) == 4
    assert {item.sha256 for item in data.items if item.is_prior} == {e.sha256 for e in copies} - held_out
    assert any(note.startswith("4 regularisation images are left out") for note in data.notes)
    only = with_entries(snapshot, [entry for entry in copies if entry.sha256 in held_out])
    with pytest.raises(TrainingError, match="prior_dataset holds only images that are held out"):
        make_set(snapshot, prior=only, held_out_percent=20)


def test_the_trigger_placeholder_is_the_trigger_word() -> None:
    first, second = snapshot_of_sizes([SQUARE] * 2).entries
    snapshot = with_entries(
        snapshot_of_sizes([SQUARE] * 2),
        [
            first.model_copy(update={"caption": "photo of [trigger], red [trigger]"}),
            second.model_copy(update={"caption": "boot"}),
        ],
    )
    assert captions(snapshot, trigger_word="sks") == ["photo of sks, red sks", "sks, boot"]
    (note,) = [note for note in make_set(snapshot).notes if "[trigger]" in note]
    assert note.startswith("[trigger] in 1 caption is learned as plain text, because trigger_word is empty")


def test_the_trigger_placeholder_in_a_regularisation_caption_is_the_trigger_word_and_no_other_is_added() -> None:
    ours, prior = snapshot_of_sizes([SQUARE] * 2), snapshot_of_sizes([WIDE] * 2)
    first, second = prior.entries
    prior = with_entries(
        prior, [first.model_copy(update={"caption": "not [trigger]"}), second.model_copy(update={"caption": "boot"})]
    )
    data = make_set(ours, prior=prior, trigger_word="sks")
    assert [item.caption for item in data.items if item.is_prior] == ["not sks", "boot"]
    assert "[trigger] in 1 regularisation caption is replaced by the trigger word “sks”." in data.notes
    plain = make_set(ours, prior=prior)
    assert [item.caption for item in plain.items if item.is_prior] == ["not [trigger]", "boot"]
    assert any(
        note.startswith("[trigger] in 1 regularisation caption is learned as plain text") for note in plain.notes
    )


SMALL_SIZES = [(300 + 47 * i % 201, 300 + 83 * i % 201) for i in range(40)]


def test_many_small_sizes_are_said_with_settings_that_make_fewer() -> None:
    snapshot = snapshot_of_sizes(SMALL_SIZES)
    data = make_set(snapshot, resolution=512, train_batch_size=8)
    number = len({item.bucket for item in data.items})
    fewer = len({item.bucket for item in make_set(snapshot, resolution=256).items})
    stepped = len({item.bucket for item in make_set(snapshot, resolution=512, bucket_step=64).items})
    assert fewer <= stepped <= 12 < 25 < number
    (note,) = [note for note in data.notes if "same image" in note]
    assert f"40 images make {number} sizes" in note
    assert f"set bucket_step to 64 for {stepped} sizes, or set resolution to 256 for {fewer} sizes" in note
    assert not any("same image" in note for note in make_set(snapshot, resolution=512, train_batch_size=1).notes)


@pytest.mark.parametrize("step", [8, 16, 64, 128])
@pytest.mark.parametrize("use_buckets", [True, False])
def test_with_a_bucket_step_all_sizes_are_its_multiples_and_none_is_enlarged(step: int, use_buckets: bool) -> None:
    snapshot = snapshot_of_sizes([*SMALL_SIZES, (900, 600), (2000, 700)])
    for item in make_set(snapshot, resolution=512, bucket_step=step, use_buckets=use_buckets).items:
        left, top, right, bottom = item.variants[0].crop
        assert item.bucket.width % step == item.bucket.height % step == 0
        assert item.bucket.width <= right - left <= item.width
        assert item.bucket.height <= bottom - top <= item.height


def test_an_image_smaller_than_a_bucket_step_keeps_the_finest() -> None:
    (item,) = make_set(snapshot_of_sizes([(100, 61)]), resolution=512, bucket_step=64).items
    assert (item.bucket.width, item.bucket.height) == (64, 56)


def test_without_a_bucket_step_sizes_are_as_before() -> None:
    for size, bucket in {(1000, 700): (576, 448), (300, 450): (264, 448), (120, 120): (120, 120)}.items():
        (item,) = make_set(snapshot_of_sizes([size]), resolution=512).items
        assert (item.bucket.width, item.bucket.height) == bucket


def test_a_bucket_step_above_the_resolution_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"bucket_step\) must be at most the resolution, which is 64, got 128"):
        make_set(snapshot_of_sizes([SQUARE]), resolution=64, bucket_step=128)


def test_another_bucket_step_is_another_latent(tmp_path: Path) -> None:
    cache = LatentCache(tmp_path, "vae", "cpu")
    files = set()
    for step in (None, 64, 128):
        (item,) = make_set(snapshot_of_sizes([(300, 450)]), resolution=512, bucket_step=step).items
        (variant,) = item.variants
        files.add(cache.file(item, variant))
    assert len(files) == 3


def test_who_made_the_images_is_in_the_loras_file_and_drift_is_a_note() -> None:
    whole = snapshot_of_sizes([SQUARE, WIDE, TALL])
    assert make_set(whole).origin == {}
    made = MadeFrom(
        made_by="the batch shoes",
        dataset="first",
        before=Variety(difference=20, colours=5),
        now=Variety(difference=10, colours=5),
    )
    recipe = whole.header.recipe.model_copy(update={"made_from": made})
    found = make_set(Snapshot(whole.header.model_copy(update={"recipe": recipe}), whole.entries))
    assert MadeFrom.model_validate_json(found.origin["lora_studio.made_from"]) == made
    assert "Second generation: these images differ 50% less than those of first." in found.notes
