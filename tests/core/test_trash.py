"""What is deleted is in the system's trash, or in the studio's own folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import send2trash

from studio.core.files import move_to_trash


@pytest.mark.process
@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="the trash of these is one for all")
def test_a_folder_goes_to_the_systems_trash_whole(tmp_path: Path) -> None:
    run = tmp_path / "made" / "run"
    run.mkdir(parents=True)
    (run / "lora.safetensors").write_bytes(b"weights")
    code = (
        "import sys; from pathlib import Path; from studio.core.files import move_to_trash\n"
        "print(move_to_trash(Path(sys.argv[1]), without_trash=Path(sys.argv[2])))"
    )
    home = {**os.environ, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data")}
    done = subprocess.run(
        [sys.executable, "-c", code, run, tmp_path / "own"], env=home, capture_output=True, text=True, check=True
    )
    assert done.stdout == "in the system's trash\n"
    assert not run.exists()
    assert (tmp_path / "data" / "Trash" / "files" / "run" / "lora.safetensors").read_bytes() == b"weights"


def test_without_a_trash_it_is_kept_in_a_folder_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(path: Path) -> None:
        raise OSError(13, "There is no trash")

    monkeypatch.setattr(send2trash, "send2trash", none)
    for content in (b"1", b"2"):
        (tmp_path / "a.png").write_bytes(content)
        where = move_to_trash(tmp_path / "a.png", without_trash=tmp_path / "trash")
        assert str(tmp_path / "trash") in where
    assert sorted(path.read_bytes() for path in (tmp_path / "trash").iterdir()) == [b"1", b"2"]
    with pytest.raises(FileNotFoundError):
        move_to_trash(tmp_path / "a.png", without_trash=tmp_path / "trash")
