"""The page in another language: every text of it is a message, and each language has its path and its readers."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from studio.core.language import PORTUGUESE, _, language
from studio.core.paths import UserData
from studio.core.settings import ModelSettings
from studio.engine.process.client import EngineClient
from studio.training.session import TrainingSession
from studio.ui.shell import web_server
from studio.ui.shell.app import build_app
from studio.ui.shell.parts import Page
from studio.ui.shell.web_server import page_head, web_app
from tests.core.test_language import EXAMPLES, NAMES
from tests.ui.test_mutated_user_data import CheckedAtOnce

# What a control shows, in Gradio's names.
SHOWN = ("label", "info", "placeholder", "title")
# Names, which are the same everywhere: of languages, schedulers, precisions, losses, formats, a model, a LoRA.
SAME = re.compile(
    r"[\W\d]*|[A-Za-z]|.*(DPM\+\+|Euler|UniPC|DDIM|PNDM|DDPM|float|Prodigy|Adam|shoes|white-ground).*|EN|English|LCM"
    r"|epsilon|v_prediction|bf16|fp16|l2|huber|smooth_l1|snr|png|jpeg|webp",
    re.DOTALL,
)


def texts_of(component: dict[str, Any]) -> Iterator[str]:
    """What a person reads of a component."""
    shown = component["props"]
    yield from (str(shown[name]) for name in SHOWN if shown.get(name))
    if component["type"] in ("button", "uploadbutton", "markdown"):
        yield str(shown.get("value") or "")
    if component["type"] == "html":
        value = re.sub(r"<(svg|script|style).*?</\1>", " ", str(shown.get("value") or ""), flags=re.DOTALL)
        yield from re.findall(r'(?:aria-label|title|alt|placeholder)="([^"]*)"', value)
        yield from re.sub(r"<[^>]*>", "\n", re.sub(r"</?(code|b|i|em|span|a|br)\b[^>]*>", "", value)).split("\n\n")
    for choice in shown.get("choices") or []:
        yield str(choice[0])


def is_message(text: str) -> bool:
    """Whether it is one, made of some, or holds no words."""
    left = re.sub(r"⟦[^⟦⟧]*(⟦[^⟦⟧]*⟧[^⟦⟧]*)*(⟧|$)", "", text).strip()  # of a help its last sentence may be left out
    return left in NAMES | EXAMPLES or bool(SAME.fullmatch(left))


def test_every_text_of_the_page_is_a_message(marked: None, tmp_path: Path) -> None:
    user_data = UserData(tmp_path)
    datasets = CheckedAtOnce(user_data, count_tokens=len)
    engine = EngineClient(user_data, model=ModelSettings(), cpu_only=True)
    page = build_app(engine, datasets, TrainingSession(user_data), user_data, cpu_only=True)
    components = page.get_config_file()["components"]
    datasets.close()
    assert len(components) > 300
    visible = [
        c for c in components if c["props"].get("visible") not in ("hidden",) and c["type"] not in ("json", "api")
    ]
    found = {(c["props"].get("elem_id"), text) for c in visible for text in texts_of(c) if not is_message(text)}
    assert found == set()


def test_a_text_that_is_no_message_is_seen() -> None:
    assert is_message("⟦Steps⟧") and is_message("⟦{n} of ⟦three⟧⟧ · 12") and is_message("DPM++ 2M") and is_message("×")
    assert not is_message("Steps") and not is_message("⟦Steps⟧ left")
    assert [*filter(None, texts_of({"type": "html", "props": {"value": '<b title="Red">blue</b>'}}))] == ["Red", "blue"]


# Which page a browser is shown


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    def build() -> gr.Blocks:
        with Page() as page:
            gr.Button(_("Training")).click(language, None, gr.Textbox(label=language()), api_name="press", queue=False)
        return page

    app: FastAPI = web_app(build, hosts=["127.0.0.1"], uploads=tmp_path_factory.mktemp("uploads"), logins=None)
    with TestClient(app, base_url="http://127.0.0.1", follow_redirects=False) as client:
        yield client


def where(client: TestClient, path: str, **headers: str) -> str:
    """The path that a browser ends at."""
    client.cookies.clear()
    answer = client.get(path, headers=headers, follow_redirects=True)
    assert answer.status_code == 200
    return str(answer.url).removeprefix("http://127.0.0.1")


@pytest.mark.parametrize(
    ("path", "headers", "end"),
    [
        ("/", {}, "/"),
        ("/", {"Accept-Language": "pt-BR,pt;q=0.9"}, "/pt-BR/"),
        ("/?__theme=dark", {"Accept-Language": "pt"}, "/pt-BR/?__theme=dark"),
        ("/", {"Accept-Language": "pt", "Cookie": "language=en"}, "/"),
        ("/", {"Cookie": "language=pt-BR"}, "/pt-BR/"),
        ("/", {"Cookie": "language=../../x"}, "/"),
        ("/pt-BR", {}, "/pt-BR/"),
        ("/pt-BR/", {"Accept-Language": "en"}, "/pt-BR/"),
        ("/pt-BR/?language=en", {"Accept-Language": "pt"}, "/"),
        ("/?language=pt-BR", {}, "/pt-BR/"),
        ("/?language=klingon", {}, "/?language=klingon"),
    ],
)
def test_a_browser_is_shown_the_page_in_its_language(
    browser: TestClient, path: str, headers: dict[str, str], end: str
) -> None:
    assert where(browser, path, **headers) == end


def test_what_was_chosen_by_hand_is_kept(browser: TestClient) -> None:
    browser.cookies.clear()
    browser.get("/?language=pt-BR", follow_redirects=True)
    assert str(browser.get("/", follow_redirects=True).url) == "http://127.0.0.1/pt-BR/"
    browser.get("/pt-BR/?language=en", follow_redirects=True)
    portuguese = {"Accept-Language": "pt-BR"}
    assert str(browser.get("/", headers=portuguese, follow_redirects=True).url) == "http://127.0.0.1/"


def test_each_page_says_and_answers_in_its_own_language(browser: TestClient) -> None:
    browser.cookies.clear()
    for path, tag, button in (("/", "en", "Training"), ("/pt-BR/", "pt-BR", "Treinamento")):
        config = browser.get(f"{path}config").json()
        assert config["root"] == f"http://127.0.0.1{path}".rstrip("/")
        assert {c["props"].get("value") for c in config["components"] if c["type"] == "button"} == {button}
        answer = browser.post(f"{path}gradio_api/run/press", json={"data": []})
        assert answer.json()["data"] == [tag]
        assert f'documentElement.lang = \\"{tag}\\"' in browser.get(path).text


def test_the_scripts_speak_it_too(marked: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.js").write_text('say(gettext("{n} of </script> files", { n }));', encoding="utf-8")
    monkeypatch.setattr(web_server, "assets_folder", lambda: tmp_path)
    web_server.script_messages.cache_clear()
    head = page_head(PORTUGUESE)
    web_server.script_messages.cache_clear()
    assert head.count("</script>") == 1, "no message ends the script"
    known = json.loads(head.partition("window.messages = ")[2].partition(";\n")[0])
    assert known == {"{n} of </script> files": "⟦{n} of </script> files⟧"}


def test_pages_are_made_once_however_many_ask_at_once() -> None:
    made: list[str] = []

    def build() -> gr.Blocks:
        made.append(language())
        with gr.Blocks() as page:
            gr.Button()
        return page

    async def ask() -> None:
        pages = web_server.PagesByLanguage(build, logins=None, root_path="")
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/config",
            "headers": [],
            "query_string": b"",
            "language": "pt-BR",
        }

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b""}

        async def send(_message: Any) -> None:  # noqa: ANN401 - ASGI's
            return

        async with pages.lifespan(FastAPI()):
            await asyncio.gather(*(pages({**scope, "app": None}, receive, send) for _ in range(4)))

    asyncio.run(ask())
    assert made == ["en", "pt-BR"]
