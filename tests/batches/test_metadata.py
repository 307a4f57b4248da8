"""What a batch writes as a dataset, `datasets` and our own reader read back, whatever its columns are called."""

from pathlib import Path

import pytest
from PIL import Image

from studio.batches.folder import BatchFolder
from studio.batches.ledger import ItemRow, Ledger
from studio.batches.outputs import write_card, write_metadata
from studio.datasets.reading import read_source
from studio.datasets.source import LayoutChoice
from tests.batches.plans import plan_of

COLUMNS = "text: of text\nfile_name: of file\nmask_file_name: of mask\nimage: of image\nsha256: of sha"
MADE_AT = "2026-11-29T00:00:00Z"


def test_columns_that_mean_something_to_readers_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    import datasets

    plan, folder = plan_of(prompts="a test shoe\na red boot", attributes=COLUMNS), BatchFolder(tmp_path / "test val")
    folder.ledgers.mkdir(parents=True)
    ledger = Ledger(folder.ledgers / "process-0.db")
    for item in range(2):
        file = folder.picture(item, "png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (item, 0, 0)).save(file)
        name = file.relative_to(folder.root).as_posix()
        made = {"file": name, "sha256": f"{item}", "seed": item, "attempts": 1, "seconds": 1.0, "made_at": MADE_AT}
        ledger.add(ItemRow.model_validate({"item": item, "state": "done", **made}))
    ledger.close()
    write_metadata(folder, plan)
    write_card(folder, plan)

    loaded = datasets.load_dataset("imagefolder", data_dir=str(folder.dataset), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    rows = loaded["train"]
    assert [row["text"] for row in rows] == ["a test shoe", "a red boot"]
    assert [row["image"].getpixel((0, 0)) for row in rows] == [(0, 0, 0), (1, 0, 0)]
    assert [row["sha256"] for row in rows] == ["0", "1"]
    assert [name for name, kind in rows.features.items() if isinstance(kind, datasets.Image)] == ["image"]
    assert {"of text", "of file", "of mask", "of image", "of sha"} <= {
        value for value in rows[0].values() if isinstance(value, str)
    }
    reading = read_source(folder.dataset, LayoutChoice())
    assert [picture.caption for picture in reading.pictures] == ["a test shoe", "a red boot"]
