"""Parts that leave memory come back to the bit, whatever lies where they were kept."""

import copy
import os
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from studio.core.errors import ModelError
from studio.core.settings import GenerationSettings
from studio.engine import memory as offload
from studio.engine.memory import OffloadedModule
from studio.engine.pipeline import PipelineManager


def small_module() -> nn.Module:
    torch.manual_seed(4)
    return nn.Sequential(nn.Linear(30, 20), nn.BatchNorm1d(20), nn.Linear(20, 5).to(torch.float16))


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert torch.equal(a[name], b[name]), name


def test_a_parked_module_holds_no_weights_and_comes_back_to_the_bit(tmp_path: Path) -> None:
    module = small_module()
    before, identities = state_of(module), [id(p) for p in module.parameters()]
    offloaded = OffloadedModule(module, tmp_path / "parked" / "a.safetensors")
    offloaded.offload()
    assert sum(p.untyped_storage().nbytes() for p in module.parameters()) == 0
    offloaded.bring_back()
    assert_same(state_of(module), before)
    assert [id(p) for p in module.parameters()] == identities  # whoever holds a parameter still holds it


def test_parking_gives_the_memory_back_to_the_system(tmp_path: Path) -> None:
    module, process = nn.Linear(8192, 4096, bias=False), psutil.Process()
    offloaded = OffloadedModule(module, tmp_path / "large.safetensors")
    present = process.memory_info().rss
    offloaded.offload()
    assert present - process.memory_info().rss > 100e6  # of 134 MB


def test_a_not_a_number_comes_back_as_the_very_one_it_was(tmp_path: Path) -> None:
    module = small_module()
    with torch.no_grad():
        next(module.parameters()).view(torch.int32)[0, 0] = 0x7FC01234
    before = next(module.parameters()).detach().view(torch.int32).clone()
    offloaded = OffloadedModule(module, tmp_path / "a.safetensors")
    offloaded.offload()
    offloaded.bring_back()
    assert torch.equal(next(module.parameters()).detach().view(torch.int32), before)
    written = (tmp_path / "a.safetensors").stat().st_ino
    OffloadedModule(module, tmp_path / "a.safetensors").offload()
    assert (tmp_path / "a.safetensors").stat().st_ino == written  # it was seen to be the same


def test_weights_that_changed_in_their_file_do_not_come_back(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    offloaded = OffloadedModule(small_module(), file)
    offloaded.offload()
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelError, match="Resume the run: they are written again"):
        offloaded.bring_back()


def test_present_only_while_it_is_needed(tmp_path: Path) -> None:
    module = small_module()
    before = state_of(module)
    offloaded = OffloadedModule(module, tmp_path / "a.safetensors")
    with offloaded.present():  # it never left
        pass
    assert next(module.parameters()).numel() == 600
    offloaded.offload()
    with pytest.raises(ValueError, match="in between"), offloaded.present():
        assert_same(state_of(module), before)
        raise ValueError("in between")
    assert next(module.parameters()).numel() == 0


def test_a_later_run_finds_the_file_and_writes_none(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    OffloadedModule(small_module(), file).offload()
    written = file.stat()
    module = small_module()
    before = state_of(module)
    again = OffloadedModule(module, file)
    again.offload()
    again.bring_back()
    assert_same(state_of(module), before)
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


def other_shape(file: Path) -> None:
    save_file({name: tensor[:1].clone() for name, tensor in load_file(file).items()}, file)


@pytest.mark.parametrize("damage", [flip_a_bit, cut, other_shape, lambda file: file.write_bytes(b"")])
def test_a_damaged_file_is_not_believed_but_written_anew(damage: object, tmp_path: Path) -> None:
    assert callable(damage)
    file = tmp_path / "a.safetensors"
    OffloadedModule(small_module(), file).offload()
    damage(file)
    module = small_module()
    before = state_of(module)
    again = OffloadedModule(module, file)
    again.offload()
    again.bring_back()
    assert_same(state_of(module), before)


def test_half_a_file_that_a_kill_left_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    file, module = tmp_path / "a.safetensors", small_module()
    before = state_of(module)
    child = os.fork()
    if child == 0:

        def killed_in_the_middle(weights: dict[str, torch.Tensor], part: Path) -> None:
            part.write_bytes(b"half of it")
            os.kill(os.getpid(), 9)

        offload.save_file = killed_in_the_middle
        OffloadedModule(module, file).offload()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    assert [path.name[:9] for path in tmp_path.iterdir()] == [".parking-"]
    offloaded = OffloadedModule(module, file)
    offloaded.offload()
    offloaded.bring_back()
    assert_same(state_of(module), before)


@pytest.mark.parametrize("damage", [Path.unlink, cut])
def test_a_file_that_went_meanwhile_is_said_with_what_to_do(damage: object, tmp_path: Path) -> None:
    assert callable(damage)
    file = tmp_path / "a.safetensors"
    offloaded = OffloadedModule(small_module(), file)
    offloaded.offload()
    damage(file)
    with pytest.raises(ModelError, match=r"lost the weights of the Sequential .*Resume the run"):
        offloaded.bring_back()


def test_where_the_file_cannot_be_written_the_weights_stay(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    module = small_module()
    before = state_of(module)
    with pytest.raises(OSError, match="file"):
        OffloadedModule(module, tmp_path / "file" / "a.safetensors").offload()
    assert_same(state_of(module), before)


def test_a_picture_is_the_same_to_the_byte_after_the_vae_was_away(
    manager: PipelineManager, tmp_path: Path, quick: GenerationSettings
) -> None:
    before = manager.generate(quick).picture
    vae = manager.components.vae
    weights = copy.deepcopy(vae.state_dict())
    offloaded = OffloadedModule(vae, tmp_path / "vae.safetensors")
    offloaded.offload()
    with offloaded.present():
        after = manager.generate(quick).picture
    offloaded.bring_back()
    assert np.array_equal(before, after)
    assert_same(dict(vae.state_dict()), dict(weights))
