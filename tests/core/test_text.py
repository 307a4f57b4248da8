"""Text for readers of Markdown."""

from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from studio.core.text import markdown_table

CELLS = st.text(st.characters(exclude_characters="\0"), max_size=12) | st.sampled_from(
    ["<b>", "a | b", r"\|", "[x](http://y)", "`", "---", "- a", "1. a", "&amp;"]
)


@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=3))
@example(rows=[(r"\\|", "*bold* <img src=x onerror=y>")])
def test_a_table_of_texts_reads_back_as_those_texts(rows: list[tuple[str, str]]) -> None:
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown_table(("a", "b"), rows))
    cells = [token for token in tokens if token.type == "inline"][2:]
    read = [" ".join("".join(child.content for child in cell.children or []).split()) for cell in cells]
    assert read == [" ".join(text.split()) for row in rows for text in row]
    assert {child.type for cell in cells for child in cell.children or []} <= {"text", "text_special"}
