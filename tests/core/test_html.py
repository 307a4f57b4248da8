"""Templates: every value is escaped, every call fits its macro, and no module builds markup by itself."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from jinja2 import UndefinedError, meta
from markupsafe import Markup

import studio
from studio.core.text import environment, template

PACKAGE = Path(studio.__file__).parent
TEMPLATES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("templates/**/*.html"))
TAG = re.compile(r"</?[a-zA-Z][a-zA-Z0-9]*(?=[\s/>]|$)|<!")


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Those that make HTML: the page's and the report's."""
    for path in sorted((*(PACKAGE / "ui").rglob("*.py"), *(PACKAGE / "training").rglob("*.py"))):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def calls(module: ast.Module, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            yield node


def has_tag(node: ast.AST) -> bool:
    return any(isinstance(n, ast.Constant) and isinstance(n.value, str) and TAG.search(n.value) for n in ast.walk(node))


def builds_tags(node: ast.AST) -> bool:
    """Whether text and tags are put together here: `f"<b>{name}</b>"`, `"<b>" + name`, `"<b>%s" % name`, `.format`."""
    match node:
        case ast.JoinedStr():
            return has_tag(node)
        case ast.BinOp(left=left, op=ast.Add() | ast.Mod(), right=right):
            return any(isinstance(side, ast.Constant | ast.JoinedStr) and has_tag(side) for side in (left, right))
        case ast.Call(func=ast.Attribute(value=ast.Constant() as text, attr="format" | "join")):
            return has_tag(text)
        case ast.Call(func=ast.Name(id="Markup"), args=[ast.expr() as given]):
            return not isinstance(given, ast.Constant)
    return False


def test_no_module_puts_text_between_tags() -> None:
    found = {f"{path}:{node.lineno}" for path, tree in modules() for node in ast.walk(tree) if builds_tags(node)}
    assert not found


@pytest.mark.parametrize(
    "code",
    ['f"<p>{x}"', 'f"{x}</p>"', '"<b>" + x', 'x + "</b>"', '"<b>%s</b>" % x', '"<i>{}</i>".format(x)', "Markup(x)"],
)
def test_each_way_to_put_text_between_tags_is_seen(code: str) -> None:
    assert any(builds_tags(node) for node in ast.walk(ast.parse(code)))


@pytest.mark.parametrize("code", ['f"{x} < {y}"', 'f" <lora:{x}>"', '"<p>Constant.</p>"', "Markup()"])
def test_what_is_no_tag_or_has_no_text_in_it_is_left_alone(code: str) -> None:
    assert not any(builds_tags(node) for node in ast.walk(ast.parse(code)))


def test_every_call_of_a_template_names_a_macro_and_what_it_takes() -> None:
    seen = 0
    for path, tree in modules():
        files = [call.args[0].value for call in calls(tree, "template") if isinstance(call.args[0], ast.Constant)]
        for call in calls(tree, "_template"):
            assert isinstance(call.args[0], ast.Constant), f"{path}:{call.lineno}"
            macro = getattr(environment().get_template(files[0]).module, call.args[0].value, None)
            assert macro is not None, f"{path}:{call.lineno}: {files[0]} has no {call.args[0].value}"
            given = {keyword.arg for keyword in call.keywords}
            unknown = given - set(macro.arguments)
            assert not unknown, f"{path}:{call.lineno}: {unknown}"
            seen += 1
    assert seen > 80


@pytest.mark.parametrize("path", TEMPLATES)
def test_a_template_uses_only_names_that_it_is_given(path: str) -> None:
    source = (PACKAGE / path).read_text(encoding="utf-8")
    assert meta.find_undeclared_variables(environment().parse(source)) <= {"range"}
    assert "|safe" not in source.replace(" ", ""), "what is markup comes as Markup"


def test_a_value_is_escaped_and_markup_is_not() -> None:
    paragraph = template("ui/templates/shell.html")
    hostile = paragraph("paragraph", kind='"x', text="<b>&'", role="")
    assert hostile == '<p class="&#34;x">&lt;b&gt;&amp;&#39;</p>'
    assert isinstance(hostile, Markup)
    assert paragraph("card", frame=hostile, words=Markup("<b>")) == (
        f'<figure class="card">{hostile!s}<figcaption><b></figcaption></figure>'
    )


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="role"):
        template("ui/templates/shell.html")("paragraph", kind="", text="")
