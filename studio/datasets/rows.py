"""The rows of a dataset as they stand, and the aspect-ratio buckets they fall into.

Aspect-ratio buckets: the sizes at which images are trained on, and the part of each that is kept.

The rule is sd-scripts': for a target area and a step, every width has the height ⌊area / width / step⌋ · step. A
image takes the bucket with the least aspect error, is scaled to cover it, cut at its centre, and never enlarged.

From what was found, edited and checked to rows: which caption counts, and what is wrong with each.

Captions from the columns of a table and from what was measured: `{baseColour} {articleType}, {ground}`. The
substitution is our own: `str.format` would let a template reach into objects.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from studio.core.errors import DatasetError
from studio.core.language import N_, _
from studio.datasets.captions import alternatives_of, tidy
from studio.datasets.edits import EditLog
from studio.datasets.source import YOUR_EDIT, DatasetRecipe, DatasetRow, Focus, SourcePicture, with_measured
from studio.images.records import MEASURED_COLUMNS, PictureFacts, Problem

SMALL_RESOLUTION = 256
FINEST_STEP = 8  # pixels to a latent


CENTRE: Focus = (0.5, 0.5)


@dataclass(frozen=True, order=True)
class Bucket:
    """A training size in pixels, both sides multiples of the step."""

    width: int
    height: int


@dataclass(frozen=True)
class BucketFit:
    """How an image gets into a bucket.

    Attributes:
        bucket: the size that training sees; below the bucket's where the image is smaller.
        crop: left, top, right, bottom of the part that is kept, in the upright image's own pixels.
        too_small: the image does not cover its bucket, and is not enlarged.
    """

    bucket: Bucket
    crop: tuple[int, int, int, int]
    too_small: bool


def step_of(resolution: int) -> int:
    """The step between sizes: 64, or 16 for models smaller than Stable Diffusion's."""
    return 64 if resolution >= SMALL_RESOLUTION else 16


@lru_cache(maxsize=16)
def buckets_for(resolution: int, step: int | None = None) -> tuple[Bucket, ...]:
    """All buckets of an area of resolution², from half the resolution to twice as wide, narrowest first.

    Args:
        resolution: side of a square of that area, in pixels.
        step: between sizes, in pixels, at most the resolution; None for what models of that size are used to.
    """
    step = step or step_of(resolution)
    least, most = max(step, resolution // 2 // step * step), resolution * 2
    sizes = set()
    for width in range(least, most + 1, step):
        height = min(most, resolution * resolution // width // step * step)
        if height >= least:
            sizes |= {Bucket(width, height), Bucket(height, width)}
    return tuple(sorted(sizes))


def assign_bucket(
    width: int, height: int, buckets: Sequence[Bucket], *, step: int | None = None, focus: Focus | None = None
) -> BucketFit:
    """The bucket of an image, and what of it is kept.

    Args:
        width, height: of the upright image, in pixels, at least 1.
        buckets: at least one.
        step: between the sizes of images that do not cover their bucket, in pixels; None for the finest, 8. An image
            smaller than one step keeps the finest.
        focus: around which the kept part lies, as far as the image reaches; None for the centre.
    """
    aspect = width / height
    # Of two that err alike the larger is taken.
    best = min(buckets, key=lambda b: (abs(b.width / b.height - aspect), -b.width * b.height))
    too_small = width < best.width or height < best.height
    if too_small:
        scale = min(width / best.width, height / best.height)
        bucket = Bucket(_rounded(best.width * scale, step), _rounded(best.height * scale, step))
    else:
        bucket = best
    return BucketFit(bucket, _crop(width, height, bucket, focus or CENTRE), too_small)


def fit_of(
    width: int, height: int, resolution: int, *, step: int | None, square: bool, focus: Focus | None = None
) -> BucketFit:
    """How an image gets into its training size.

    Args:
        width, height: of the upright image, in pixels, at least 1.
        resolution: side of a square of the size's area, in pixels.
        step: between sizes, in pixels, those of small images too; None for what is usual.
        square: one size for all that cover it.
        focus: as in `assign_bucket`.
    """
    buckets = (Bucket(resolution, resolution),) if square else buckets_for(resolution, step)
    return assign_bucket(width, height, buckets, step=step, focus=focus)


def _rounded(side: float, step: int | None) -> int:
    """Down to a multiple of the step, else of 8."""
    whole = int(side)
    return (step and whole // step * step) or max(FINEST_STEP, whole // FINEST_STEP * FINEST_STEP)


def _crop(width: int, height: int, bucket: Bucket, focus: Focus) -> tuple[int, int, int, int]:
    """The largest part of the bucket's shape, around the focus as far as the image reaches."""
    scale = min(width / bucket.width, height / bucket.height)
    kept_width, kept_height = min(width, round(bucket.width * scale)), min(height, round(bucket.height * scale))
    left = min(max(0, int(focus[0] * width - kept_width / 2)), width - kept_width)
    top = min(max(0, int(focus[1] * height - kept_height / 2)), height - kept_height)
    return left, top, left + kept_width, top + kept_height


_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_NO_VALUES = frozenset({"", "na", "n/a", "nan", "none", "null", "-"})
_OPEN, _CLOSE = "\ue000", "\ue001"  # stand for braces meant literally, and for those in values


def columns_of(template: str) -> tuple[str, ...]:
    """The columns that a template names, in its order.

    Raises:
        DatasetError: where a brace is not closed, or stands for nothing.
    """
    names = []
    for match in _PIECE.finditer(template):
        if match.group() in ("{", "}"):
            raise DatasetError(
                _(
                    "template has a single {brace} at character {place}. Write {{column}} for a column, "
                    "or {double} for the brace itself.",
                    brace=match.group(),
                    place=match.start() + 1,
                    double=match.group() * 2,
                )
            ).about("template")
        if match.group(1) is not None:
            names.append(match.group(1).strip())
    return tuple(dict.fromkeys(names))


def check_template(template: str, columns: Sequence[str]) -> None:
    """See that every column of the template is there.

    Raises:
        DatasetError: naming the first that is not, and those that are.
    """
    for name in columns_of(template):
        if name not in columns:
            words = _(
                "template names the column {name!r}, which is not there. Available: {available}.",
                name=name,
                available=", ".join(columns),
            )
            raise DatasetError(words).about("template")


def fill_template(template: str, attributes: Mapping[str, str]) -> str:
    """The caption of one row. What is missing leaves no gap: no double space, no stray comma, no empty brackets.

    Raises:
        DatasetError: where the template is wrong, or names a column that the row does not have.
    """
    check_template(template, tuple(attributes))

    def fill(match: re.Match[str]) -> str:
        if match.group() == "{{":
            return _OPEN
        if match.group() == "}}":
            return _CLOSE
        value = attributes[match.group(1).strip()].strip()
        value = "" if value.lower() in _NO_VALUES else value
        return value.replace("{", _OPEN).replace("}", _CLOSE)

    return tidy(_PIECE.sub(fill, template)).replace(_OPEN, "{").replace(_CLOSE, "}")


TEMPLATE = N_("the template")
MAX_TOKENS = 75  # of CLIP's 77, two mark the beginning and the end
EXTREME_ASPECT = 2.5  # of the longer side to the shorter: the centre crop then loses most of the image

CountTokens = Callable[[str], int]


def take_rows(pictures: Sequence[SourcePicture], recipe: DatasetRecipe) -> list[SourcePicture]:
    """Those that every row choice of the recipe keeps."""
    wanted = [(choice.column, frozenset(choice.values)) for choice in recipe.rows]
    return [p for p in pictures if all(p.attributes.get(column, "") in values for column, values in wanted)]


def uses_template(picture: SourcePicture, recipe: DatasetRecipe) -> bool:
    """Whether the recipe's template makes the caption: not that of an image without a row where it names a table's."""
    if not recipe.template:
        return False
    return bool(picture.attributes) or set(columns_of(recipe.template)) <= set(MEASURED_COLUMNS)


def names_measured(template: str, picture: SourcePicture) -> bool:
    """Whether a template names a column that the check measures; one of the table's of the same name comes first."""
    return bool({*columns_of(template)} & {*MEASURED_COLUMNS} - {*picture.attributes})


def caption_of(
    picture: SourcePicture, recipe: DatasetRecipe, edits: EditLog, facts: PictureFacts | None
) -> tuple[str, str]:
    """The caption that counts, and who said it: the user, else the template, else the source, else the recipe."""
    if picture.key in edits.captions:
        return edits.captions[picture.key], YOUR_EDIT
    if recipe.template and uses_template(picture, recipe):
        return fill_template(recipe.template, with_measured(picture.attributes, facts)), TEMPLATE
    if picture.caption:
        return picture.caption, picture.caption_from
    if recipe.default_caption.strip():
        return " ".join(recipe.default_caption.split()), N_("the caption for images without one")
    return picture.caption or "", picture.caption_from


def make_row(
    picture: SourcePicture,
    *,
    path: Path,
    recipe: DatasetRecipe,
    edits: EditLog,
    facts: PictureFacts | None,
    buckets: Sequence[Bucket],
    count_tokens: CountTokens,
) -> DatasetRow:
    """One row, with the problems that can be seen in it alone."""
    caption, caption_from = caption_of(picture, recipe, edits, facts)
    # A caption that could not be read no longer matters once another one counts.
    fixed = caption_from != picture.caption_from
    of_source = tuple(p for p in picture.problems if not (fixed and p.code.startswith("caption")))
    found = [*(facts.problems if facts else ()), *of_source]
    awaits_check = facts is None and caption_from == TEMPLATE and names_measured(recipe.template or "", picture)
    if caption:
        found += _length_problems(caption, count_tokens)
    elif not awaits_check and not any(problem.code.startswith("caption") for problem in of_source):
        found.append(_no_caption() if picture.caption is None and not fixed else _empty_caption())
    if facts is not None and facts.is_usable:
        found += _size_problems(facts, recipe, buckets)
    return DatasetRow(
        key=picture.key,
        path=path,
        caption=caption,
        caption_from=caption_from,
        repeats=picture.repeats,
        attributes=picture.attributes,
        facts=facts,
        problems=tuple(found),
        excluded=picture.key in edits.excluded,
        starred=picture.key in edits.starred,
        focus=edits.focus.get(picture.key),
        awaits_check=awaits_check,
    )


def _length_problems(caption: str, count_tokens: CountTokens) -> list[Problem]:
    # A token has at least one character, so short captions need no counting.
    longest = max(alternatives_of(caption), key=len)
    if len(longest) > MAX_TOKENS and (tokens := count_tokens(longest)) > MAX_TOKENS:
        sentence = _(
            "The caption has {tokens} tokens, and the text encoder reads {limit} at a time: "
            "what is past them is not learned. Shorten it, with the most important words first.",
            tokens=tokens,
            limit=MAX_TOKENS,
        )
        return [Problem(code=N_("caption too long"), severity="note", sentence=sentence)]
    return []


def _size_problems(facts: PictureFacts, recipe: DatasetRecipe, buckets: Sequence[Bucket]) -> list[Problem]:
    """Of an image that can be read: smaller than training wants it, or so long that cropping loses most of it."""
    fit = assign_bucket(facts.width, facts.height, buckets)
    problems = []
    if fit.too_small:
        sentence = _(
            "{width} × {height} pixels are fewer than training at {resolution} wants, so little "
            "can be learned from it. Use a larger copy, or a smaller resolution.",
            width=facts.width,
            height=facts.height,
            resolution=recipe.resolution,
        )
        problems.append(Problem(code=N_("too small"), severity="note", sentence=sentence, remedies=("exclude",)))
    longer, shorter = max(facts.width, facts.height), min(facts.width, facts.height)
    if longer > EXTREME_ASPECT * shorter:
        left, top, right, bottom = fit.crop
        kept = (right - left) * (bottom - top) / (facts.width * facts.height)
        sentence = _(
            "It is {times:.1f} times as long as wide; its bucket keeps {share:.0%} of it. Cut it to what matters, or "
            "leave it out.",
            times=longer / shorter,
            share=kept,
        )
        problems.append(Problem(code=N_("extreme shape"), severity="note", sentence=sentence, remedies=("exclude",)))
    return problems


def captions_all_alike(rows: Sequence[DatasetRow]) -> str:
    """A sentence where (nearly) all used captions are one and the same; "" otherwise."""
    used = [row.caption for row in rows if row.is_used]
    if len(used) < 2:
        return ""
    caption, num_same = Counter(used).most_common(1)[0]
    if num_same < 0.95 * len(used) or not caption:
        return ""
    return _(
        "{num_same:,} of {num_used:,} captions are the same: “{caption}”. Nothing but that text "
        "is learned then; say in each what differs from image to image.",
        num_same=num_same,
        num_used=len(used),
        caption=caption[:80],
    )


def _no_caption() -> Problem:
    sentence = _(
        "It has no caption, so it is learned for empty prompts. Type one, or set a caption for all without one."
    )
    return Problem(code=N_("caption missing"), severity="note", sentence=sentence)


def _empty_caption() -> Problem:
    sentence = _(
        "Its caption is empty, so it is learned for empty prompts. Type one, or set one for all that have none."
    )
    return Problem(code=N_("caption empty"), severity="note", sentence=sentence)
