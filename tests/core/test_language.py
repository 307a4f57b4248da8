"""What is said in which language, how numbers are written in it, and that all that is said has a translation."""

import ast
import pickle
import re
import string
import threading
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from io import BytesIO
from pathlib import Path

import pytest
from babel.messages.catalog import Message
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po
from pydantic import ValidationError

from studio.core import language as language_module
from studio.core.errors import StudioError
from studio.core.language import (
    ENGLISH,
    LANGUAGES,
    PORTUGUESE,
    _,
    catalogue_file,
    for_later,
    in_this_language,
    language,
    language_of,
    moment,
    nearest_language,
    ngettext,
    number,
    percent,
    preferred_language,
    said,
    speaking,
)
from studio.core.records import KeptText, Record
from studio.core.text import counted, duration, gigabytes
from tests.marked_messages import marked_catalogue

ROOT = Path(__file__).resolve().parents[2]
STUDIO = ROOT / "studio"
KEYWORDS = {"_": None, "N_": None, "gettext": None, "ngettext": (1, 2), "counted": (2, 3)}
METHODS = [("studio/**.py", "python"), ("studio/**.html", "jinja2"), ("assets/*.js", "javascript")]
MessageId = str | tuple[str, str]


@cache
def messages() -> dict[MessageId, str]:
    """Every message that the studio can say, with a place that says it."""
    found = extract_from_dir(ROOT, METHODS, {"studio/**.html": {"trimmed": "true"}}, KEYWORDS, strip_comment_tags=True)
    return {
        (message[0], message[1]) if isinstance(message, tuple) else message: f"{file}:{line}"
        for file, line, message, *__ in found
        if message
    }


def plain(message: MessageId) -> str:
    """Without its plural: gettext knows one entry of a text, with a plural or without."""
    return message if isinstance(message, str) else message[0]


@cache
def translations(tag: str) -> dict[MessageId, Message]:
    catalogue = read_po(BytesIO(catalogue_file(tag).read_bytes()))
    return {entry.id if isinstance(entry.id, str) else tuple(entry.id): entry for entry in catalogue if entry.id}


def marked(path: Path) -> Iterator[tuple[int, str]]:
    """The texts that a module marks, wherever they stand: Babel does not see those inside f-strings."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
        for place in {"_": (0,), "N_": (0,), "ngettext": (0, 1), "counted": (1, 2)}.get(name, ()):
            value = node.args[place] if isinstance(node, ast.Call) and len(node.args) > place else None
            for part in (value.body, value.orelse) if isinstance(value, ast.IfExp) else (value,):
                if isinstance(part, ast.Constant) and part.value:
                    yield node.lineno, part.value


def test_babel_sees_every_message_that_is_marked() -> None:
    seen = {text for message in messages() for text in ((message,) if isinstance(message, str) else message)}
    unseen = [
        f"{path.relative_to(STUDIO)}:{line}: {text}"
        for path in sorted(STUDIO.rglob("*.py"))
        for line, text in marked(path)
        if text not in seen
    ]
    for script in sorted((ROOT / "assets").glob("*.js")):
        calls = re.findall(r'\bgettext\(\s*"([^"]*)"', script.read_text(encoding="utf-8"))
        assert len(calls) == len(re.findall(r"\bgettext\(", script.read_text(encoding="utf-8"))), script.name
        unseen += [f"{script.name}: {text}" for text in calls if text not in seen]
    assert unseen == []


def test_a_percentage_has_no_space_in_either_language() -> None:
    spaced = re.compile(r"[\d}] %(?![%(}])")
    said = [text for message in messages() for text in ((message,) if isinstance(message, str) else message)]
    said += [str(entry.string) for tag in OTHERS for entry in translations(tag).values()]
    assert [text for text in said if spaced.search(text)] == []
    code = [
        f"{path.relative_to(STUDIO)}: {part}"
        for path in sorted(STUDIO.rglob("*.py"))
        for part in re.findall(r"f\"[^\"\n]*\} %(?!H:)[^\"\n]*\"", path.read_text(encoding="utf-8"))
    ]
    assert code == []
    for tag, seven in ((ENGLISH, "7.2%"), (PORTUGUESE, "7,2%")):
        with speaking(tag):
            assert percent(0.072, ".1f") == seven


OTHERS = [tag for tag in LANGUAGES if tag != ENGLISH]


def test_the_messages_are_found() -> None:
    assert len(messages()) > 2000
    assert ("image", "images") in messages()
    assert "Training" in messages()


@pytest.mark.parametrize("tag", OTHERS)
def test_every_message_has_a_translation(tag: str) -> None:
    known = translations(tag)
    with_plural = {plain(message): entry for message, entry in known.items()}
    lacking = {}
    for message, place in messages().items():
        entry = known.get(message) or (with_plural.get(message) if isinstance(message, str) else None)
        texts = () if entry is None else (entry.string,) if isinstance(entry.string, str) else entry.string
        if entry is None or entry.fuzzy or not texts or not all(texts):
            lacking[place] = message
    assert lacking == {}


@pytest.mark.parametrize("tag", OTHERS)
def test_a_catalogue_holds_no_message_that_nothing_says(tag: str) -> None:
    assert set(map(plain, translations(tag))) - set(map(plain, messages())) == set()


def values_in(text: str) -> set[tuple[str, str, str]]:
    """Its values with their formats: what a translation may put in another order, and must not change."""
    fields = string.Formatter().parse(text)
    return {(name, form or "", conversion or "") for __, name, form, conversion in fields if name is not None}


@pytest.mark.parametrize("tag", OTHERS)
def test_a_translation_has_the_values_of_its_message_and_its_ends(tag: str) -> None:
    wrong = {}
    for message, entry in translations(tag).items():
        originals = (message,) if isinstance(message, str) else message
        texts = (entry.string,) if isinstance(entry.string, str) else entry.string
        known = set().union(*map(values_in, originals)) if any("{" in text for text in originals) else set()
        for text in texts:
            has = values_in(text) if "{" in "".join(originals) and _takes_values(message) else known
            if not (has == known or (len(originals) == 2 and has < known)):  # of one a number need not be said
                wrong[message] = text
            if (text[:1].isspace(), text[-1:].isspace()) != (originals[0][:1].isspace(), originals[0][-1:].isspace()):
                wrong[message] = text
    assert wrong == {}


def _takes_values(message: MessageId) -> bool:
    """Whether what it is said with could have values in it: one without any may hold braces of its own."""
    try:
        return any(values_in(text) for text in ((message,) if isinstance(message, str) else message))
    except ValueError:
        return False


# What a person would read, and no catalogue holds


SPOKEN_ARGUMENTS = {"label", "info", "placeholder", "title", "description", "caption", "help", "alt", "unit", "group"}
SPOKEN_CALLS = {"Button", "Accordion", "Tab", "UploadButton", "toast", "Refusal", "problem"}
MARKS = {"_", "N_", "ngettext", "field_help", "counted"}
NOT_READ = {"Field": {"alias"}}
ERRORS = {kind.__name__ for kind in [StudioError, *StudioError.__subclasses__()]} | {"MismatchError"}


def unmarked(source: str) -> Iterator[tuple[int, str]]:
    """The texts at places where a person reads them that are not marked for translation."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        read = [keyword.value for keyword in node.keywords if keyword.arg in SPOKEN_ARGUMENTS]
        if name in SPOKEN_CALLS or name in ERRORS:
            read += node.args[:1]
        for value in read:
            for part in (value.body, value.orelse) if isinstance(value, ast.IfExp) else (value,):
                if (text := _text_of(part)) and re.search(r"[A-Za-z]{2}", text):
                    yield part.lineno, text


def _text_of(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value for part in node.values if isinstance(part, ast.Constant))
    if isinstance(node, ast.BinOp):
        return _text_of(node.left) + _text_of(node.right)
    return ""


# The same in every language.
NAMES = {
    "LoRA",
    "LoRAs",
    "LoRA Studio",
    "TF32",
    "VAE",
    "SNR gamma",
    "DoRA",
    "EMA",
    "URL",
    "GPU",
    "GB",
    "MB",
    "px",
    "kB",
    "Python",
}
EXAMPLES = {"/Users/you/Pictures", "{baseColour} {articleType}, white background"}
NEVER_SEEN = {"Refresh", "Recall"}  # hidden buttons that the page's scripts press


@pytest.mark.parametrize("path", sorted(STUDIO.rglob("*.py")), ids=lambda path: str(path.relative_to(STUDIO)))
def test_what_a_person_reads_is_marked(path: Path) -> None:
    found = [
        (line, text)
        for line, text in unmarked(path.read_text(encoding="utf-8"))
        if text.strip() not in NAMES | EXAMPLES | NEVER_SEEN
    ]
    assert found == []


def words_of(template: str) -> list[str]:
    """The texts and the spoken attributes of a template, without what Jinja makes of them."""
    plain = re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}|<(svg|script).*?</\1>", " ", template, flags=re.DOTALL)
    spoken = re.findall(r'(?:aria-label|title|alt|placeholder|aria-valuetext)="([^"]*)"', plain)
    without_tags = re.sub(r"<[^>]*>|\bdata-[a-z-]+=\"[^\"]*\"|\bhidden\b", " ", plain)
    return [word for text in (*spoken, without_tags) for word in re.findall(r"[A-Za-z]{2,}", text)]


@pytest.mark.parametrize("path", sorted(STUDIO.rglob("*.html")), ids=lambda path: str(path.relative_to(STUDIO)))
def test_a_template_has_no_words_of_its_own(path: Path) -> None:
    allowed = {word for name in NAMES for word in name.split()} | {"Ctrl", "Enter", "Esc", "Shift", "sha", "doctype"}
    assert [word for word in words_of(path.read_text(encoding="utf-8")) if word not in allowed] == []


def test_a_text_that_is_not_marked_is_seen() -> None:
    assert list(unmarked('gr.Button("Start")')) == [(1, "Start")]
    assert list(unmarked('raise DatasetError(f"No image in {folder}.")')) == [(1, "No image in .")]
    assert list(unmarked('gr.Textbox(label="Seed" if a else _("Seed"))')) == [(1, "Seed")]
    assert list(unmarked('gr.Button(_("Start"), elem_id="start")')) == []
    assert words_of('<p title="Red {{ x }}">{{ _("Blue") }} green</p>{# no #}') == ["Red", "green"]


# How it is said


def test_values_and_numbers_are_written_as_the_language_does(marked: None) -> None:
    with speaking(PORTUGUESE):
        assert _("{num:,} of {name}, {share:.1%}", num=1991, name="1,5", share=0.25) == "⟦1.991 of 1,5, 25,0%⟧"
        assert number(1234.5, ",.2f") == "1.234,50"
        assert counted(2000, "image", "images") == "⟦2.000 ⟦images⟧⟧"
        assert ngettext("{n} image", "{n} images", 1, n=1) == "⟦1 image⟧"
        assert moment(datetime(2026, 11, 29, 21, 8, 7)) == "29/11/2026 21:08"
    with speaking(ENGLISH):
        assert number(1234.5, ",.2f") == "1,234.50"
        assert moment(datetime(2026, 11, 29, 21, 8, 7), seconds=True) == "2026-11-29 21:08:07"


def test_a_text_without_values_may_hold_braces() -> None:
    assert _("{column} stands for a column") == "{column} stands for a column"
    assert _("") == ""


def test_english_is_what_the_messages_are_written_in() -> None:
    with speaking(ENGLISH):
        assert _("Training") == "Training"
    with speaking(PORTUGUESE):
        assert _("Training") == "Treinamento"
        assert counted(2, "image", "images") == "2 imagens"
        assert counted(1, "image", "images") == "1 imagem"


@pytest.mark.parametrize(
    ("accepted", "tag"),
    [
        ("", ENGLISH),
        ("pt-BR,pt;q=0.9,en;q=0.8", PORTUGUESE),
        ("pt-PT", PORTUGUESE),
        ("de-DE,de;q=0.9", ENGLISH),
        ("en-US,en;q=0.9,pt;q=0.8", ENGLISH),
        ("de, pt;q=0.5, en;q=0.4", PORTUGUESE),
        ("pt;q=0, en", ENGLISH),
        ("pt;q=nonsense", ENGLISH),
        (";;;q=,,", ENGLISH),
    ],
)
def test_a_browser_says_what_its_user_speaks(accepted: str, tag: str) -> None:
    assert preferred_language(accepted) == tag


@pytest.mark.parametrize(
    ("environment", "tag"),
    [
        ({}, ENGLISH),
        ({"LANG": "pt_BR.UTF-8"}, PORTUGUESE),
        ({"LANG": "C.UTF-8"}, ENGLISH),
        ({"LANG": "pt_BR.UTF-8", "LC_ALL": "C"}, ENGLISH),
        ({"LANG": "tr_TR.UTF-8"}, ENGLISH),
        ({"LANG": "en_US", "STUDIO_LANGUAGE": "pt"}, PORTUGUESE),
        ({"LANG": "pt_BR", "STUDIO_LANGUAGE": "en"}, ENGLISH),
    ],
)
def test_a_process_speaks_what_its_environment_says(environment: dict[str, str], tag: str) -> None:
    assert language_of(environment) == tag


def test_tags_are_read_as_people_write_them() -> None:
    assert [nearest_language(tag) for tag in ("pt", "PT-br", "pt_PT", "xx", "")] == [PORTUGUESE] * 3 + [ENGLISH] * 2


def test_a_thread_speaks_the_language_of_whoever_starts_it() -> None:
    heard: list[str] = []
    with speaking(PORTUGUESE):
        for act in (lambda: heard.append(language()), in_this_language(lambda: heard.append(language()))):
            thread = threading.Thread(target=act)
            thread.start()
            thread.join()
        with speaking(ENGLISH):
            assert language() == ENGLISH
        assert language() == PORTUGUESE
    assert heard == [ENGLISH, PORTUGUESE], "the first does not: that is why there is the second"


def test_a_message_that_is_kept_is_said_in_the_language_of_whoever_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_module, "catalogue", marked_catalogue)
    with for_later():
        inner = counted(2000, "image", "images")
        kept = _("{images} in {place}: {error}", images=inner, place=Path("a/b"), error=StudioError(_("no")))
        assert language() == ENGLISH
    assert kept == "2,000 images in a/b: no", "a text in English for whoever knows of nothing"
    for copy in (kept, pickle.loads(pickle.dumps(kept)), Note(text=kept).text):
        assert Note.model_validate_json(Note(text=copy).model_dump_json()).text == kept
        with speaking(PORTUGUESE):
            words = "⟦⟦2.000 ⟦images⟧⟧ in a/b: ⟦no⟧⟧"
            assert said(copy) == f"{copy}" == words
            assert _("so: {why}", why=copy) == f"⟦so: {words}⟧"
            assert str(StudioError(copy)) == words
        assert said(copy) == kept
    assert said("as it is") == "as it is"


class Note(Record):
    text: KeptText


@pytest.mark.parametrize(
    "stored",
    [
        '{"text": 3}',
        '{"text": {"message": "a {b}", "values": {"c": 1}, "plural": "", "num": 0}}',
        '{"text": {"message": "a"}}',
    ],
)
def test_a_kept_message_that_was_changed_by_hand_is_refused(stored: str) -> None:
    with pytest.raises(ValidationError):
        Note.model_validate_json(stored)


def test_a_plain_text_of_an_older_studio_is_read() -> None:
    assert Note.model_validate_json('{"text": "It is {damaged}."}').text == "It is {damaged}."


def test_numbers_of_what_is_said_later_are_written_as_whoever_reads_them_writes_them() -> None:
    with for_later():
        kept = _("{size} in {time}", size=gigabytes(3 * 2**29), time=duration(4.25))
        alone = number(1991)
    assert (kept, alone) == ("1.5 GB in 4.2 s", "1,991")
    with speaking("pt-BR"):
        assert said(kept).endswith("1,5 GB in 4,2 s")
        assert said(alone) == "1.991"
