"""A dataset of images that a LoRA made: where they come from, which are left out, how far they drifted.

A LoRA that is trained on a LoRA's images learns less and less: they resemble each other more than what it learned from.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from studio.core.errors import DatasetError, PictureFileError
from studio.core.language import N_, _, said
from studio.core.paths import UserData
from studio.core.text import counted
from studio.datasets.checker import PictureChecker
from studio.datasets.library import DatasetLibrary
from studio.datasets.opened import OpenedDataset
from studio.datasets.report import find_duplicates
from studio.datasets.snapshot import Snapshot, read_snapshot
from studio.datasets.source import MadeFrom, Variety
from studio.images.decoding import open_rgb
from studio.images.files import read_picture_text
from studio.images.records import PictureFacts
from studio.images.scores.colour import rgb_to_lab
from studio.images.scores.image import MIN_SIDE, PictureScores, score_picture
from studio.images.scores.summary import WHITE_SHARE
from studio.loras.library import LoraLibrary
from studio.loras.weights_file import read_header

DATASET_DIGEST = "lora_studio.dataset_sha256"
"""In a LoRA's file: which snapshot it was trained on."""
BLURRED = 0.5
"""Of the median sharpness: less is left out."""
DRIFT = 0.8
"""Of the first dataset's variety: less is warned of."""
MAX_COMPARED = 400
DUPLICATE = N_("near-duplicates")
REASONS = (
    DUPLICATE,
    N_("copies of a training image"),
    N_("another colour than asked"),
    N_("less white than the others"),
    N_("blurred"),
    N_("no subject found"),
)


def low_scores(scores: Mapping[str, PictureScores]) -> dict[str, str]:
    """Which images are worse than the others, and why: one of `REASONS`, by key.

    A white ground and a subject are asked only where most of the images have them.
    """
    num_white = sum(score.border.whiteness >= WHITE_SHARE for score in scores.values())
    num_subjects = sum(score.centring is not None for score in scores.values())
    sharpness = [score.sharpness for score in scores.values() if score.sharpness is not None]
    sharp = BLURRED * float(np.median(sharpness)) if sharpness else 0.0
    found = {}
    for key, score in scores.items():
        rules = (
            score.nearest is not None and score.nearest.likeness == "as a copy",
            score.colour is not None and not score.colour.is_named_right,
            2 * num_white > len(scores) and score.border.whiteness < WHITE_SHARE,
            score.sharpness is not None and score.sharpness < sharp,
            2 * num_subjects > len(scores) and score.centring is None,
        )
        if reasons := [reason for reason, is_so in zip(REASONS[1:], rules, strict=True) if is_so]:
            found[key] = reasons[0]
    return found


def scored(pictures: Mapping[Path, str]) -> dict[str, PictureScores]:
    """The scores of images by their names; of each file its prompt is given. Those that cannot be read are left out."""
    found = {}
    for path, prompt in pictures.items():
        try:
            rgb_HWC = np.asarray(open_rgb(path))
        except PictureFileError:  # the dataset's check says so of it
            continue
        if min(rgb_HWC.shape[:2]) >= MIN_SIDE:
            found[path.name] = score_picture(rgb_HWC, prompt=prompt)
    return found


def unfit_images(
    dataset: OpenedDataset, scores: Mapping[str, PictureScores], judged: Collection[str] = ()
) -> dict[str, str]:
    """The images to be left out, and why, by key: low scores; of near-duplicates those that resemble one that stays.

    Images that are left out already are no part of it; those that were judged before stay.
    """
    rows = [row for row in dataset.rows if row.facts is not None and row.is_used]
    used = {row.key for row in rows}
    low = low_scores({key: score for key, score in scores.items() if key in used})
    unfit = {key: reason for key, reason in low.items() if key not in judged}
    good = [row for row in rows if row.key not in unfit]
    pairs = find_duplicates(good).pairs
    twins: dict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        twins[pair.first_key].add(pair.second_key)
        twins[pair.second_key].add(pair.first_key)
    for pair in pairs:
        if pair.exact:  # only the first of copies is compared with other images
            twins[pair.second_key] |= twins[pair.first_key]
    kept = {row.key for row in good if row.key in judged}
    for row in good:  # of A~B~C only B is left out
        if row.key not in judged and twins[row.key] & kept:
            unfit[row.key] = DUPLICATE
        else:
            kept.add(row.key)
    return unfit


def variety_of(all_facts: Sequence[PictureFacts]) -> Variety | None:
    """How much images differ from each other; None of fewer than two.

    `difference` is the mean CIELAB distance of two images at the same place, of 8 × 8; `colours` the effective number
    of subject colours (the exponential of their words' entropy). Of very many images some are compared.
    """
    usable = [facts for facts in all_facts if facts.tiny]
    if len(usable) < 2:
        return None
    chosen = [usable[i] for i in np.unique(np.linspace(0, len(usable) - 1, MAX_COMPARED).astype(int))]
    rgb_NYXC = np.array([list(bytes.fromhex(facts.tiny)) for facts in chosen], np.uint8).reshape(-1, 8, 8, 3)
    lab_NPC = np.stack([rgb_to_lab(rgb_YXC) for rgb_YXC in rgb_NYXC]).reshape(len(chosen), 64, 3)
    sums = [np.linalg.norm(lab_NPC[i + 1 :] - lab_PC, axis=-1).mean(axis=-1).sum() for i, lab_PC in enumerate(lab_NPC)]
    words = Counter(colour for facts in usable if (colour := facts.measured.get("colour", "")))
    shares = [num / words.total() for num in words.values()]
    entropy = -sum(share * math.log(share) for share in shares)
    num_pairs = len(chosen) * (len(chosen) - 1) / 2
    return Variety(difference=float(sum(sums)) / num_pairs, colours=math.exp(entropy) if words else 0.0)


def note_generation(
    dataset: OpenedDataset,
    user_data: UserData,
    *,
    made_by: str,
    scores: Mapping[str, PictureScores],
    snapshots: Sequence[Path],
) -> MadeFrom:
    """Leave out what is unfit, as an edit that can be undone, and keep in the recipe where the images come from.

    Args:
        made_by: the batch or what else made them, in words.
        snapshots: of the runs, among which that of the first dataset is looked for.

    Raises:
        DatasetError: where images cannot be checked.
        OSError: where it cannot be written.
    """
    checker = PictureChecker(user_data.cache / "picture-checks.db", user_data.cache / "dataset-thumbnails")
    try:
        dataset.check(checker)
        if dataset.progress.problem:
            raise DatasetError(dataset.progress.problem)
        known = dataset.recipe.made_from.judged if dataset.recipe.made_from else {}
        unfit = unfit_images(dataset, scores, known)
        judged = {**{row.key: "" for row in dataset.rows if row.facts and row.is_used}, **known, **unfit}
        dataset.set_excluded([*unfit], excluded=True)
        loras = _loras_of([row.path for row in dataset.rows])
        first = _first_dataset(loras, user_data, snapshots)
        before = variety_of(_facts_of(first, checker)) if first else None
    finally:
        checker.close()
    made = MadeFrom(
        made_by=made_by,
        loras=loras,
        dataset=first.header.name if first else "",
        left_out=dict(Counter(judged[row.key] for row in dataset.rows if row.excluded and judged.get(row.key))),
        before=before,
        now=variety_of([row.facts for row in dataset.rows if row.is_used and row.facts]),
        judged=judged,
    )
    dataset.recipe = dataset.recipe.model_copy(update={"made_from": made})
    DatasetLibrary(user_data.datasets).save_recipe(dataset.name, dataset.recipe)
    return made


def use_only(dataset: OpenedDataset, wanted: Collection[str]) -> None:
    """Leave out what is not wanted any more, and take back what only that left out; other choices stay.

    Raises:
        OSError: where it cannot be written.
    """
    made = dataset.recipe.made_from
    lost = [row.key for row in dataset.rows if row.key not in wanted and not row.excluded]
    judged = made.judged if made else {}
    again = [row.key for row in dataset.rows if row.key in wanted and row.excluded and row.key not in judged]
    dataset.set_excluded(again, excluded=False)
    dataset.set_excluded(lost, excluded=True)
    if made:
        left = {key: reason for key, reason in judged.items() if key not in lost}
        dataset.recipe = dataset.recipe.model_copy(update={"made_from": made.model_copy(update={"judged": left})})


def _loras_of(paths: Sequence[Path]) -> tuple[str, ...]:
    """The LoRAs that acted in the images, the most used first."""
    found: Counter[str] = Counter()
    for path in paths:
        try:
            text = read_picture_text(path)
        except PictureFileError:  # damaged, or another program's: its row says so
            continue
        found.update(lora.name for lora in text.settings.loras)
    return tuple(name for name, __ in found.most_common())


def _first_dataset(loras: Sequence[str], user_data: UserData, snapshots: Sequence[Path]) -> Snapshot | None:
    """What the first of the LoRAs that is known by a run was trained on."""
    library = LoraLibrary(user_data.loras)
    by_digest = defaultdict(list)
    for path in snapshots:
        try:
            snapshot = read_snapshot(path)
        except DatasetError:  # of another version, or changed: it is not known which it was
            continue
        by_digest[snapshot.header.digest].append(snapshot)
    for name in loras:
        if name in library.names():
            digest = read_header(library.find(name)).metadata.get(DATASET_DIGEST, "")
            if digest in by_digest:
                return by_digest[digest][0]
    return None


def _facts_of(snapshot: Snapshot, checker: PictureChecker) -> list[PictureFacts]:
    found: dict[Path, PictureFacts] = {}
    paths = [Path(entry.path) for entry in snapshot.entries if Path(entry.path).is_file()]
    checker.check(paths, background=snapshot.header.recipe.background, on_checked=found.__setitem__)
    return list(found.values())


def lineage_words(made: MadeFrom) -> list[str]:
    """Where images come from, what was left out of them, and a warning where they drifted; in sentences."""
    sentences = [_("From {what}.", what=said(made.made_by))]
    if made.loras:
        sentences = [_("From {what}, made with {loras}.", what=said(made.made_by), loras=", ".join(made.loras))]
    if made.left_out:
        total = counted(sum(made.left_out.values()), "image", "images")
        reasons = ", ".join(f"{num:,} × {_(reason)}" for reason, num in made.left_out.items())
        sentences.append(_("{images} left out: {reasons}.", images=total, reasons=reasons))
    return [*sentences, *drift_words(made)]


def drift_words(made: MadeFrom | None) -> list[str]:
    """A warning where images that were made here have less variety than those of the first dataset."""
    before, now = (made.before, made.now) if made else (None, None)
    if made is None or before is None or now is None:
        return []
    sentences = []
    if now.difference < DRIFT * before.difference:
        drop = 1 - now.difference / before.difference
        sentences.append(
            _(
                "Second generation: these images differ {drop:.0%} less than those of {dataset}.",
                drop=drop,
                dataset=made.dataset,
            )
        )
    if now.colours < DRIFT * before.colours:
        sentences.append(
            _(
                "Second generation: the subjects have about {now:.1f} colours; those of {dataset} have {before:.1f}.",
                now=now.colours,
                before=before.colours,
                dataset=made.dataset,
            )
        )
    if sentences:
        sentences.append(_("Add images of the first dataset, or make a more varied batch."))
    return sentences
