"""A session's own acts on the datasets of the library."""

from pathlib import Path

from studio.core.paths import UserData
from studio.datasets.session import DatasetSession
from tests.datasets.bad_inputs import encoded, picture


def save_png(path: Path) -> None:
    path.write_bytes(encoded(picture(), "PNG"))


def test_images_are_collected_in_a_dataset_of_their_own(tmp_path: Path) -> None:
    own = tmp_path / "collected"
    own.mkdir()
    save_png(own / "mine.png")
    session = DatasetSession(UserData(tmp_path / "user_data"), count_tokens=len)
    session.open_folder(str(own))
    for number in (1, 2, 2):
        save_png(tmp_path / f"{number}.png")
        session.collect({tmp_path / f"{number}.png": f"prompt {number}"})
    collected = session.of("collected-2").opened
    assert [(row.key, row.caption) for row in collected.rows] == [("1.png", "prompt 1"), ("2.png", "prompt 2")]
    assert session.view.name == "collected", "what is shown stays"
    assert sorted(path.name for path in own.iterdir()) == ["mine.png"]
    session.close()
