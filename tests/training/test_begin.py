"""A snapshot names every file that is lost to the training."""

from pathlib import Path

from studio.core.paths import UserData
from studio.training.begin import MAX_LOST, take_snapshot
from tests.datasets.bad_inputs import PNG


def test_files_that_are_lost_are_named_up_to_a_number(tmp_path: Path) -> None:
    folder, outside = tmp_path / "shoes", tmp_path / "outside.png"
    folder.mkdir()
    for path in (folder / "a.png", outside):
        path.write_bytes(PNG)
    for number in range(MAX_LOST + 2):
        (folder / f"link{number}.png").symlink_to(outside)
    taken = take_snapshot(str(folder), UserData(tmp_path / "user_data"))
    assert [entry.key for entry in taken.snapshot.entries] == ["a.png"]
    assert all("is not used: A link that leads out of the folder" in sentence for sentence in taken.left_out[:-1])
    assert taken.left_out[-1] == "2 more files and rows are not used. Check the dataset for their list."
