"""What a page chose to show, as it sends it: never taken for more than a choice."""

import pytest

from studio.ui.shell.selection import SelectedImage, Selection, changed, read_selection


def test_it_comes_back_as_it_was_sent() -> None:
    selection = Selection(
        run="a", batch="b", log=True, compared=("c",), image=SelectedImage(step=100, picture=1), window="Last 200"
    )
    assert read_selection(selection.model_dump_json()) == selection
    assert read_selection(changed(selection, run="d", image=None)) == selection.model_copy(
        update={"run": "d", "image": None}
    )


@pytest.mark.parametrize("sent", [None, "", "{}", "{", "[]", '{"run": 3}', '{"nosuch": 1}', '{"image": {"step": "x"}}'])
def test_what_is_none_chooses_nothing(sent: str | None) -> None:
    assert read_selection(sent) == Selection()
