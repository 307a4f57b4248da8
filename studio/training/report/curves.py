"""The sections of a training's report that are seen: curves, and validation images by step."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from studio.core.language import _, number
from studio.core.text import GIB, counted, gigabytes
from studio.jobs.events import MemoryEvent
from studio.training.curves import MAX_POINTS, Chart, Curve, is_number, num_above, smoothed
from studio.training.events import SampleEvent, StepEvent
from studio.training.report.facts import RunFacts, by_step
from studio.training.report.parts import Charts, Part, Picture, PictureGroup, Pictures, Section, Table, Words
from studio.training.report.sections import held_out_rows, spread

MAX_COLUMNS = 8
MAX_ROWS = 12
MAX_SMOOTHING = 0.98  # of the past: a mean over about fifty steps


def curves_section(facts: RunFacts) -> Section:
    """Loss, held-out loss, learning rate, gradient and memory: drawn, and in numbers."""
    charts = [*_step_charts(facts), *_memory_chart(facts)]
    parts: list[Part] = [Charts(tuple(charts))] if charts else [Words(_("No steps or memory readings were recorded."))]
    if facts.held_out:
        head = (_("Step"), _("Held-out loss"), _("Trained loss"))
        caption = _("Loss on fixed images")
        if (num_looks := len(facts.held_out)) > MAX_ROWS:
            looks = counted(num_looks, "look", "looks")
            caption = _("Loss on fixed images ({shown} of {looks}, evenly)", shown=MAX_ROWS, looks=looks)
        parts.append(Table(caption, head, held_out_rows(facts.held_out, MAX_ROWS), folded=True))
    if facts.steps:
        rows = _numbers(facts.steps)
        columns = (_("What"), _("First tenth, mean"), _("Last tenth, mean"), _("Least"), _("Most"))
        parts.append(Table(_("Step statistics"), columns, rows, folded=True))
    return Section(_("Curves"), tuple(parts))


def _step_charts(facts: RunFacts) -> list[Chart]:
    charts = []
    looks = facts.held_out
    at = [look.step for look in looks]
    held_out = [math.nan if look.held_out_loss is None else look.held_out_loss for look in looks]
    fixed = (
        Curve(_("held-out images"), at, held_out, "second"),
        Curve(_("training images"), at, [look.trained_loss for look in looks], "third"),
    )
    if facts.steps:
        names = (_("loss of a step"), _("loss, smoothed"))
        losses = _dotted(facts.steps, names, [event.loss for event in facts.steps])
        charts.append(_noted(Chart(_("Training loss"), _("step"), _("loss"), (*losses, *fixed))))
    if looks:
        note = _("The same images, timesteps and noise every time, so small changes are meaningful.")
        charts.append(Chart(_("Loss on fixed images"), _("step"), _("loss"), fixed, note))
    if facts.steps:
        steps = [event.step for event in facts.steps]
        rates = Curve(_("learning rate of the U-Net"), steps, [event.learning_rate for event in facts.steps])
        charts.append(Chart(_("Learning rate"), _("step"), _("rate"), (rates,), from_zero=True))
        names = (_("norm of a step"), _("norm, smoothed"))
        norms = _dotted(facts.steps, names, [event.grad_norm for event in facts.steps])
        title = _("Gradient norm, before clipping")
        charts.append(_noted(Chart(title, _("step"), _("norm"), norms, from_zero=True)))
        names = (_("time of a step"), _("time, smoothed"))
        seconds = _dotted(facts.steps, names, [event.seconds for event in facts.steps])
        charts.append(_noted(Chart(_("Time of a step"), _("step"), _("seconds"), seconds, from_zero=True)))
    return charts


def _dotted(steps: Sequence[StepEvent], names: tuple[str, str], values: Sequence[float]) -> tuple[Curve, Curve]:
    """Single values as dots, and their running mean, by their names."""
    at = [event.step for event in steps]
    weight = min(MAX_SMOOTHING, max(0.0, 1 - 20 / len(steps)))
    single, mean = names
    if len(steps) > MAX_POINTS:
        drawn = _("({drawn} of {num_steps:,} drawn)", drawn=MAX_POINTS, num_steps=len(steps))
        single = f"{single} {drawn}"
    return Curve(single, at, values, "dots"), Curve(mean, at, smoothed(values, weight), "main")


def _noted(chart: Chart) -> Chart:
    """With what is not drawn, said."""
    dots = next(curve for curve in chart.curves if curve.style == "dots")
    sentences = []
    if lost := len(dots.xs) - len(dots.points):
        sentences.append(_("{steps} had no finite value.", steps=counted(lost, "step", "steps")))
    if above := num_above(chart):
        sentences.append(_("{steps} above the upper end not drawn.", steps=counted(above, "step", "steps")))
    return replace(chart, note=" ".join(sentences))


def _memory_chart(facts: RunFacts) -> list[Chart]:
    reported = [(at, e) for at, e in zip(facts.worked_at, facts.events, strict=True) if isinstance(e, MemoryEvent)]
    if not reported:
        return []
    units = ((_("hours of work"), 3600), (_("minutes of work"), 60), (_("seconds of work"), 1))
    unit, seconds = next((unit for unit in units if reported[-1][0] >= 2 * unit[1]), units[-1])
    times = [at / seconds for at, __ in reported]
    curves = [Curve(_("process"), times, [event.process_bytes / GIB for __, event in reported])]
    on_accelerator = [
        (t, e.accelerator_bytes) for t, (__, e) in zip(times, reported, strict=True) if e.accelerator_bytes
    ]
    if on_accelerator:
        values = [num_bytes / GIB for __, num_bytes in on_accelerator]
        curves.append(Curve(_("accelerator"), [at for at, __ in on_accelerator], values, "second"))
    process, accelerator = gigabytes(facts.peak_process_bytes), gigabytes(facts.peak_accelerator_bytes)
    if facts.peak_accelerator_bytes is None:
        note = _("Peak: {process} of the process.", process=process)
    else:
        note = _(
            "Peak: {process} of the process, {accelerator} on the accelerator.",
            process=process,
            accelerator=accelerator,
        )
    return [Chart(_("Memory"), unit, "GB", tuple(curves), note, from_zero=True)]


def _numbers(steps: Sequence[StepEvent]) -> tuple[tuple[str, ...], ...]:
    columns = (
        (_("Training loss"), [event.loss for event in steps], ".4f"),
        (_("Gradient norm"), [event.grad_norm for event in steps], ".4g"),
        (_("Learning rate"), [event.learning_rate for event in steps], ".4g"),
        (_("Seconds of a step"), [event.seconds for event in steps], ".4g"),
    )
    rows = []
    for name, values, form in columns:
        finite = [value for value in values if is_number(value)]
        tenth = max(1, len(finite) // 10)
        if finite:
            ends = (statistics.fmean(finite[:tenth]), statistics.fmean(finite[-tenth:]), min(finite), max(finite))
            rows.append((name, *(number(value, form) for value in ends)))
    return tuple(rows)


def pictures_section(facts: RunFacts) -> Section:
    """The base's image and the LoRA's of each prompt, one column a step."""
    reported = by_step(facts.reported(SampleEvent))
    title = _("Validation images")
    if not reported:
        return Section(title, (Words(_("No validation images were made.")),))
    shown = [reported[index] for index in spread(len(reported), MAX_COLUMNS)]
    groups = tuple(_group(facts.run.root, shown, index) for index in range(max(len(e.pictures) for e in shown)))
    parts: list[Part] = [Pictures(tuple(_("Step {step:,}", step=event.step) for event in shown), groups)]
    if len(shown) < len(reported):
        left_out = _(
            "{shown} of {reported:,} steps with images are shown, evenly; all are in the folder samples.",
            shown=len(shown),
            reported=len(reported),
        )
        parts.insert(0, Words(left_out))
    files = tuple((number(event.step), event.lora) for event in reported if event.lora)
    parts.append(Table(_("LoRA file"), (_("Step"), _("File")), files, folded=True))
    return Section(title, tuple(parts))


def _group(root: Path, shown: Sequence[SampleEvent], index: int) -> PictureGroup:
    prompts = [event.prompts[index] for event in shown if index < len(event.prompts)]
    prompt = prompts[-1] if prompts else _("(prompt not recorded)")
    base: list[Picture | None] = []
    lora: list[Picture | None] = []
    before: str | None = ""
    for event in shown:
        file = _file(event.base, index)
        words = _("Base at step {step:,}: {prompt}", step=event.step, prompt=prompt)
        base.append(None if file == before else _picture(root, file, words))
        before = file
        words = _("LoRA at step {step:,}: {prompt}", step=event.step, prompt=prompt)
        lora.append(_picture(root, _file(event.pictures, index), words))
    rows = ((_("Base"), tuple(base)), ("LoRA", tuple(lora)))
    return PictureGroup(f"{index + 1}. {prompt}", rows)


def _file(files: Sequence[str | None], index: int) -> str | None:
    return files[index] if index < len(files) else None


def _picture(root: Path, file: str | None, words: str) -> Picture:
    if file is None:
        return Picture("", _("not made: see the problems"))
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts or "\\" in file or not (root / path).is_file():
        return Picture("", _("no longer in the folder"))
    return Picture(path.as_posix(), words)
