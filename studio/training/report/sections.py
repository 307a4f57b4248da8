"""The sections of a training's report that are tables and sentences."""

import shlex
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Literal, get_origin

from studio.core.language import _, moment, number, percent, said
from studio.core.text import counted, duration, gigabytes
from studio.datasets.generation import lineage_words
from studio.datasets.rows import fit_of
from studio.datasets.snapshot import Snapshot
from studio.datasets.source import LAYOUT_TITLES
from studio.jobs.events import NoteEvent, ProblemEvent, ResumedEvent
from studio.training.events import CheckpointEvent, EffectEvent, FinishedEvent, HeldOutEvent, SampleEvent
from studio.training.report.facts import RunFacts, by_step
from studio.training.report.outcome import duration_of_step
from studio.training.report.parts import Command, Items, Part, Section, Table, Words
from studio.training.settings import TrainingSettings

NUM_CAPTIONS = 6
NUM_BUCKETS = 16
SEEDS = ("seed", "validation_seed")  # copied, not read: without separators
MEGABYTE = 2**20
PROMPT_SEPARATOR = " | "  # of `--set validation_prompts=`


def settings_section(facts: RunFacts) -> Section:
    """What differs from the defaults; all, folded."""
    settings = facts.settings
    if settings is None:
        return Section(_("Settings"), (Words(_("They are missing.")),))
    changed = changed_settings(settings)
    differing = tuple(
        (title_of(name), name, setting_words(name, getattr(settings, name)), _default_words(name)) for name in changed
    )
    everything = tuple(
        (title_of(name), name, setting_words(name, getattr(settings, name)), _(field.description or name))
        for name, field in TrainingSettings.model_fields.items()
    )
    head = (_("Setting"), _("Name"), _("Value"))
    return Section(
        _("Settings"),
        (
            Table(_("Settings that differ from the defaults"), (*head, _("Default")), differing),
            Table(_("All settings"), (*head, _("Description")), everything, folded=True),
        ),
    )


def changed_settings(settings: TrainingSettings) -> tuple[str, ...]:
    """Names of the fields that are not as they would be by themselves; those without a default always."""
    fields = TrainingSettings.model_fields.items()  # a missing default equals no value
    return tuple(name for name, field in fields if getattr(settings, name) != field.default)


def title_of(name: str) -> str:
    """A setting's label."""
    return _(TrainingSettings.model_fields[name].title or name)


def setting_words(name: str, value: object) -> str:
    """A value to be read: `yes`, `3,000`, `0.0001`, `none`."""
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if isinstance(value, int):
        return str(value) if name in SEEDS else number(value)
    if isinstance(value, float):
        return number(value, "g")
    if isinstance(value, tuple):
        return " · ".join(map(str, value)) or _("none")
    if get_origin(TrainingSettings.model_fields[name].annotation) is Literal:
        return _(str(value))  # as forms call it
    return _("not set") if value is None else str(value) or _("none")


def _default_words(name: str) -> str:
    field = TrainingSettings.model_fields[name]
    return "–" if field.is_required() else setting_words(name, field.default)


def dataset_section(facts: RunFacts) -> Section:
    """Which images, in which sizes, with which captions."""
    if facts.snapshot is None:
        return Section(_("Dataset"), (Words(_("Its snapshot is missing.")),))
    parts: list[Part] = [_dataset_table(_("The dataset"), facts.snapshot)]
    if facts.plan:
        kept = facts.plan.num_pictures - facts.plan.num_held_out
        told = _(
            "Trained on: {images}. Held out, to measure: {num_held_out:,}.",
            images=counted(kept, "image", "images"),
            num_held_out=facts.plan.num_held_out,
        )
        parts.append(Words(told))
    made = facts.snapshot.header.recipe.made_from
    parts += [Words(sentence) for sentence in (lineage_words(made) if made else ())]
    parts.append(_buckets_table(facts, facts.snapshot))
    entries = facts.snapshot.entries
    examples = tuple((entries[i].key, entries[i].caption or _("(none)")) for i in spread(len(entries), NUM_CAPTIONS))
    parts.append(Table(_("Sample captions"), (_("Image"), _("Caption")), examples))
    if facts.prior:
        parts.append(_dataset_table(_("Regularisation images"), facts.prior))
    return Section(_("Dataset"), tuple(parts))


def _dataset_table(caption: str, snapshot: Snapshot) -> Table:
    header, entries = snapshot.header, snapshot.entries
    captions = {entry.caption for entry in entries if entry.caption}
    layout = header.recipe.layout.layout
    return Table(
        caption,
        (_("Item"), _("Value")),
        (
            (_("Name"), header.name),
            (_("Images"), number(len(entries))),
            (_("Images per epoch, with repeats"), number(sum(entry.repeats for entry in entries))),
            (_("Different captions"), number(len(captions))),
            (_("Images without a caption"), number(sum(not entry.caption for entry in entries))),
            (_("Source"), header.recipe.source),
            (_("Layout"), _(LAYOUT_TITLES[layout]) if layout else _("recognised from what lies there")),
            (_("Size of all images"), size_words(sum(entry.num_bytes for entry in entries))),
            (_("Snapshot made"), zoned_moment(header.made_at)),
            (_("Digest (sha256 of all entries)"), header.digest),
        ),
    )


def _buckets_table(facts: RunFacts, snapshot: Snapshot) -> Table:
    resolution = (
        (facts.plan.resolution if facts.plan else None)
        or (facts.settings.resolution if facts.settings else None)
        or snapshot.header.recipe.resolution
    )
    settings = facts.settings
    square, step = (False, None) if settings is None else (not settings.use_buckets, settings.bucket_step)
    fits = (fit_of(entry.width, entry.height, resolution, step=step, square=square) for entry in snapshot.entries)
    found = Counter(fit.bucket for fit in fits)
    most = found.most_common(NUM_BUCKETS)
    rows = [
        (_("{width:,} × {height:,} pixels", width=bucket.width, height=bucket.height), number(num_images))
        for bucket, num_images in most
    ]
    counts = [num_images for __, num_images in most]
    if len(found) > len(most):
        counts.append(len(snapshot.entries) - sum(counts))
        rows.append((_("{others:,} other sizes", others=len(found) - len(most)), number(counts[-1])))
    shares = tuple(count / max(counts) for count in counts)
    return Table(_("Training sizes"), (_("Size"), _("Images")), tuple(rows), shares=shares)


def spread(num_indices: int, most: int) -> list[int]:
    """At most so many of the indices below `num_indices`, evenly, the first and the last among them."""
    if num_indices <= most:
        return list(range(num_indices))
    return [round(i * (num_indices - 1) / (most - 1)) for i in range(most)]


def effect_section(facts: RunFacts) -> Section:
    """How far each group of layers moved, at the last look."""
    reported = by_step(facts.reported(EffectEvent))
    if not reported or not reported[-1].groups:
        return Section(_("Effect by group of layers"), (Words(_("It was not measured.")),))
    first, last = reported[0], reported[-1]
    groups = sorted(last.groups.items(), key=lambda item: -item[1])
    most = max(last.groups.values()) or 1.0
    looks = (last,) if first is last else (first, last)
    head = (_("Layers"), *(_("At step {step:,}", step=look.step) for look in looks))
    rows = [(_(group), *(_share(look.groups.get(group)) for look in looks)) for group, __ in groups]
    words = _(
        "{group} changed most: what was added has {share} of the length of its weights.",
        group=_(groups[0][0]),
        share=_share(groups[0][1]),
    )
    caption = _("Size of the update relative to the weights (‖ΔW‖ / ‖W‖)")
    table = Table(caption, head, tuple(rows), shares=tuple(value / most for __, value in groups))
    return Section(_("Effect by group of layers"), (Words(words[0].upper() + words[1:]), table))


def _share(value: float | None) -> str:
    return "–" if value is None else percent(value, ".3g")


def files_section(facts: RunFacts) -> Section:
    """What came out, and the checkpoints."""
    finished = facts.reported(FinishedEvent)
    parts: list[Part] = []
    if finished:
        rows = tuple((file, _size_of(facts, file)) for file in finished[-1].files)
        name = finished[-1].library_name
        in_library = _("In the library of LoRAs it is called {name}.", name=name)
        parts.append(Words(in_library if name else _("It is not in the library.")))
        parts.append(Table(_("Results"), (_("File"), _("Size")), rows))
    else:
        parts.append(Words(_("No finished LoRA came out yet; a checkpoint holds its weights too.")))
    checkpoints = facts.checkpoints
    if not checkpoints:
        return Section(_("Files"), (*parts, Words(_("No checkpoint was saved."))))
    lines = tuple(
        (number(c.step), c.folder, size_words(c.num_bytes), duration_of_step(c.seconds), _is_kept(facts, c))
        for c in checkpoints
    )
    head = (_("Step"), _("Folder"), _("Size"), _("Saved in"), _("On the disk"))
    parts.append(Table(_("Checkpoints"), head, lines, folded=len(lines) > 12))
    return Section(_("Files"), tuple(parts))


def _is_kept(facts: RunFacts, checkpoint: CheckpointEvent) -> str:
    return _("yes") if (facts.run.root / checkpoint.folder).is_dir() else _("no longer")


def _size_of(facts: RunFacts, file: str) -> str:
    try:
        return size_words((facts.run.root / file).stat().st_size)
    except OSError:
        return _("not there")


def size_words(num_bytes: int) -> str:
    """`812 bytes`, `3.2 MB`, `1.4 GB`, in powers of 1024 as `studio.images.smoke_report.gigabytes`."""
    if num_bytes < MEGABYTE / 10:
        return _("{num_bytes:,} bytes", num_bytes=num_bytes)
    return f"{number(num_bytes / MEGABYTE, ',.1f')} MB" if num_bytes < 1000 * MEGABYTE else gigabytes(num_bytes)


def report_section(facts: RunFacts) -> Section:
    """Problems and notes, in full."""
    parts: list[Part] = []
    problems = tuple((number(p.step), zoned_moment(p.at), said(p.message)) for p in facts.reported(ProblemEvent))
    if problems:
        parts.append(Table(_("Problems"), (_("Step"), _("When"), _("Message")), problems))
    else:
        parts.append(Words(_("No problems were reported.")))
    planned = facts.plan.notes if facts.plan else ()
    notes = dict.fromkeys(map(said, (*planned, *(note.message for note in facts.reported(NoteEvent)))))
    resumes = [
        _("Resumed at step {step:,} ({when}).", step=r.step, when=zoned_moment(r.at))
        for r in facts.reported(ResumedEvent)
    ]
    if notes or resumes:
        parts.append(Items((*notes, *resumes)))
    return Section(_("Problems and notes"), tuple(parts))


def cost_section(facts: RunFacts) -> Section:
    """Time and memory."""
    median, seconds = facts.median_step_seconds, [event.seconds for event in facts.steps]
    events, looks = facts.events, facts.memory
    rows = [
        (_("Began"), zoned_moment(events[0].at) if events else "–"),
        (_("Last report"), zoned_moment(events[-1].at) if events else "–"),
        (_("Working time, without pauses"), duration(facts.seconds)),
        (_("Step time, median"), duration_of_step(median)),
        (_("Step time, slowest"), duration_of_step(max(seconds, default=None))),
        (_("Counted steps"), duration(sum(seconds))),
        (_("Images per second"), _speed(facts)),
        (_("Validation images"), duration(sum(event.seconds for event in facts.reported(SampleEvent)))),
        (_("Checkpoints"), duration(sum(event.seconds for event in facts.reported(CheckpointEvent)))),
    ]
    least = min((event.system_available_bytes for event in looks), default=None)
    limits = [event.accelerator_limit_bytes for event in looks if event.accelerator_limit_bytes]
    memory = (
        (_("Process, peak"), gigabytes(facts.peak_process_bytes)),
        (_("Accelerator, peak"), gigabytes(facts.peak_accelerator_bytes)),
        (_("Accelerator, limit"), gigabytes(limits[-1] if limits else None)),
        (_("System, lowest free"), gigabytes(least)),
        (_("System, total"), gigabytes(looks[-1].system_total_bytes if looks else None)),
    )
    times = Table(_("Time"), (_("Phase"), _("Time")), tuple(rows))
    return Section(_("Time and memory"), (times, Table(_("Memory"), (_("Reading"), _("Memory")), memory)))


def _speed(facts: RunFacts) -> str:
    median, settings = facts.median_step_seconds, facts.settings
    if not median or settings is None:
        return "–"
    return number(settings.train_batch_size * settings.gradient_accumulation_steps / median, ",.3g")


def machine_section(facts: RunFacts) -> Section:
    """Device, model and versions."""
    plan = facts.plan
    if plan is None:
        return Section(_("Machine and versions"), (Words(_("They are missing: the run decided nothing yet.")),))
    checkpointing = _("on") if plan.gradient_checkpointing else _("in part") if plan.recomputed else _("off")
    trainable = _(
        "{num_parameters:,} parameters in {layers}",
        num_parameters=plan.num_parameters,
        layers=counted(plan.num_layers, "layer", "layers"),
    )
    rows = (
        (_("Device"), f"{plan.device_name} ({plan.device})"),
        (_("Model"), plan.model + (f"@{plan.model_revision}" if plan.model_revision else "")),
        (_("Precision of the base"), plan.precision),
        (_("Mixed precision"), _(plan.mixed_precision)),
        (_("Resolution"), _("{resolution:,} pixels", resolution=plan.resolution)),
        (_("Gradient checkpointing"), f"{checkpointing}: {plan.checkpointing_reason}"),
        (_("Trainable"), trainable),
        *((_("Digest of {part}", part=part), digest) for part, digest in plan.model_digests.items()),
    )
    model = Table(_("Machine and model"), (_("Item"), _("Value")), rows)
    versions = Table(_("Versions"), (_("Package"), _("Version")), tuple(plan.versions.items()))
    return Section(_("Machine and versions"), (model, versions))


def command_section(facts: RunFacts) -> Section:
    """The line that begins the same run again."""
    if facts.settings is None:
        return Section(_("Reproduce this run"), (Words(_("The settings are missing.")),))
    sentence = _("The same images, settings and versions on the same device give the same run.")
    if any(PROMPT_SEPARATOR.strip() in prompt for prompt in facts.settings.validation_prompts):
        parted = _("A prompt has a | in it, which parts prompts here: duplicate the run to keep that prompt whole.")
        sentence = f"{sentence} {parted}"
    return Section(_("Reproduce this run"), (Words(sentence), Command(repeat_command(facts.settings))))


def repeat_command(settings: TrainingSettings) -> str:
    """What `studio.cli.train` reads as these settings; quoted for a POSIX shell."""
    words = ["python", "-m", "studio", "train", "--dataset", settings.dataset]
    for name in changed_settings(settings):
        value = getattr(settings, name)
        if name != "dataset":
            words += ["--set", f"{name}={_typed(value)}"]
    return shlex.join(words)


def _typed(value: object) -> str:
    """A value as it is typed after `--set name=`."""
    if isinstance(value, tuple):
        return PROMPT_SEPARATOR.join(map(str, value))
    return "none" if value is None else str(value)


def held_out_rows(looks: Sequence[HeldOutEvent], most: int) -> tuple[tuple[str, ...], ...]:
    """Losses of fixed images by step, evenly thinned."""
    rows = []
    for index in spread(len(looks), most):
        look = looks[index]
        held_out = "–" if look.held_out_loss is None else number(look.held_out_loss, ".4f")
        rows.append((number(look.step), held_out, number(look.trained_loss, ".4f")))
    return tuple(rows)


def zoned_moment(at: datetime) -> str:
    """`2026-03-01 14:05:09 UTC+01:00`, as it was told."""
    told = moment(at, seconds=True)
    return f"{told} UTC{at.isoformat(timespec='seconds')[19:]}" if at.tzinfo else told
