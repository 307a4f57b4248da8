"""The Inference tab: Generate, Compare, the LoRA library and the smoke test, one mode at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.core.language import N_, _
from studio.core.paths import UserData
from studio.datasets.session import DatasetSession
from studio.engine.process.client import EngineClient
from studio.engine.process.view import EngineView
from studio.jobs.session import JobLine
from studio.loras.library import LoraLibrary
from studio.training.session import TrainingSession
from studio.ui.inference import compare as compare_mode
from studio.ui.inference import generate as generate_mode
from studio.ui.inference import history as history_panel
from studio.ui.inference import loras as lora_library
from studio.ui.inference import smoke as smoke_mode
from studio.ui.inference.history import PastImages
from studio.ui.shell import device_busy_box
from studio.ui.shell.device_busy_box import BlockingJobs
from studio.ui.shell.parts import QUIET, Group
from studio.ui.shell.selection import Selection


@dataclass(frozen=True)
class InferenceTab:
    """The tab's modes and sections."""

    taken: device_busy_box.DeviceBusyBox
    smoke: smoke_mode.SmokeMode
    generate: generate_mode.GenerateMode
    generate_tab: gr.Tab
    history: history_panel.HistoryPanel
    compare: compare_mode.CompareMode
    loras: lora_library.LoraPanel
    start: gr.Button

    @property
    def shown(self) -> dict[str, gr.components.Component]:
        """Every part that a refresh keeps true, by its name."""
        parts = (self.taken, self.smoke, self.generate, self.compare, self.loras)
        return {name: part for group in parts for name, part in group.shown.items()} | {"start": self.start}

    @property
    def forms(self) -> dict[str, dict[str, gr.components.Component]]:
        """What the browser keeps of the tab, form by form."""
        return {
            "smoke": self.smoke.named,
            "generate": self.generate.form.named,
            "compare": self.compare.form,
        }


def build() -> InferenceTab:
    """Lay the tab out."""
    start = gr.Button(_("Start the engine"), elem_id="start-engine", visible=False, variant="primary")
    taken = device_busy_box.build()
    with gr.Tabs(elem_id="modes"):
        with gr.Tab(_("Generate"), id="generate") as generate_tab:
            generate = generate_mode.build()
            history = history_panel.build(generate.canvas)
        with gr.Tab(_("Compare"), id="compare"):
            compare = compare_mode.build()
        with gr.Tab(_("LoRA library"), id="lora-library"):
            loras = lora_library.build()
        with gr.Tab(_("Smoke test"), id="smoke-test"):
            smoke = smoke_mode.build()
    return InferenceTab(taken, smoke, generate, generate_tab, history, compare, loras, start)


def render(
    view: EngineView,
    library: LoraLibrary,
    past: PastImages,
    jobs: Sequence[JobLine],
    blocking_jobs: BlockingJobs,
    selection: Selection,
    user_data: UserData,
) -> dict[str, Group]:
    """What makes every shown part of the tab as it should be now."""
    return {
        N_("The device"): lambda: device_busy_box.render(view, jobs, blocking_jobs),
        N_("The smoke test"): lambda: smoke_mode.render(view),
        N_("Generate"): lambda: generate_mode.render(
            view, library, user_data, history_panel.shown_large(past, selection)
        ),
        N_("The history"): lambda: {"generate-strip": lambda: history_panel.strip_html(past, selection)},
        N_("Compare"): lambda: compare_mode.render(view, library, selection.pair),
        N_("The library of LoRAs"): lambda: lora_library.render(view, library, selection),
        N_("The engine"): lambda: {"start": gr.update(visible=view.phase in ("gone", "off"))},
    }


def wire(
    tab: InferenceTab,
    engine: EngineClient,
    trainings: TrainingSession,
    blocking_jobs: BlockingJobs,
    past: PastImages,
    selection: gr.HTML,
    *,
    datasets: DatasetSession,
    trained: Sequence[gr.Dropdown],
    then_refresh: Callable[[Any], None],
) -> None:
    """Connect every mode and section; `datasets` is where past images are collected."""
    user_data = trainings.user_data
    device_busy_box.wire(tab.taken, engine, blocking_jobs, trainings.jobs, then_refresh=then_refresh)
    smoke_mode.wire(tab.smoke, engine, then_refresh=then_refresh)
    library = LoraLibrary(user_data.loras)
    generate_mode.wire(tab.generate, tab.generate_tab, engine, user_data, then_refresh=then_refresh)
    history = tab.history, tab.generate, past, user_data, engine, selection, tab.compare.form
    history_panel.wire(*history, datasets=datasets, trained=trained, then_refresh=then_refresh)
    compare_mode.wire(tab.compare, engine, user_data, selection, then_refresh=then_refresh)
    lora_library.wire(tab.loras, engine, library, selection, then_refresh=then_refresh)
    then_refresh(tab.start.click(engine.start, **QUIET))
