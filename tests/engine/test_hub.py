"""Models from the Hub arrive whole or not at all, and nothing that has arrived is fetched twice."""

import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from huggingface_hub import close_session

from studio.core.errors import DownloadCancelledError, ModelError
from studio.core.paths import CHECKOUT_FOLDER, assets_folder
from studio.core.settings import SHIPPED_MODEL
from studio.engine.hub import (
    DownloadProgress,
    DownloadWatcher,
    HubSnapshot,
    find_hub_file,
    find_hub_model,
    unusable_proxy,
)
from studio.engine.model_folder import PARTS
from tests.engine.hub_server import FakeHub, fake_hub, files_of

NAME = "someone/shoes"
UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT_ENCODER = "text_encoder/model.safetensors"
NOT_NEEDED = {
    "README.md": b"# shoes",
    "shoes.safetensors": b"all in one",
    "unet/diffusion_pytorch_model.bin": b"a pickle",
    "unet/diffusion_pytorch_model.fp16.safetensors": b"another precision",
    "safety_checker/config.json": b"{}",
    "safety_checker/model.safetensors": b"a safety checker",
    "feature_extractor/preprocessor_config.json": b"{}",
}


@pytest.fixture(scope="session")
def shipped() -> dict[str, bytes]:
    return {name: content for name, content in files_of(assets_folder() / SHIPPED_MODEL).items() if "/" in name} | {
        "model_index.json": (assets_folder() / SHIPPED_MODEL / "model_index.json").read_bytes()
    }


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setattr("studio.engine.hub_download.RETRY_SECONDS", 0.001)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with fake_hub() as hub:
        yield hub


@pytest.fixture
def find(hub: FakeHub, tmp_path: Path) -> Callable[..., HubSnapshot]:
    """`find_hub_model` with the test's own hub and cache."""

    def find(name: str, progress: DownloadWatcher | None = None) -> HubSnapshot:
        return find_hub_model(name, progress=progress, endpoint=hub.address, cache=tmp_path / "hub")

    return find


Find = Callable[..., HubSnapshot]


def cancel_in(file: str) -> DownloadWatcher:
    """Cancels after the first bytes of a file, but not at once."""
    progress: list[DownloadProgress] = []
    return DownloadWatcher(progress.append, lambda: any(seen.file == file for seen in progress))


@pytest.fixture
def reports_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.engine.hub_download.REPORT_SECONDS", 0.0)


def test_a_model_is_downloaded_as_it_is(hub: FakeHub, find: Find, shipped: dict[str, bytes]) -> None:
    commit = hub.add(NAME, shipped)
    found = find(NAME)
    assert found.repository == NAME
    assert found.revision == commit == found.folder.name
    assert found.notes == ()
    assert files_of(found.folder) == shipped


def test_only_what_is_needed_is_fetched(hub: FakeHub, find: Find, shipped: dict[str, bytes]) -> None:
    hub.add(NAME, shipped | NOT_NEEDED)
    found = find(NAME)
    assert sorted(hub.fetched()) == sorted(shipped)
    assert files_of(found.folder) == shipped


def test_a_copy_on_this_machine_is_used_without_asking_anyone(
    hub: FakeHub, find: Find, shipped: dict[str, bytes]
) -> None:
    hub.add(NAME, shipped)
    first = find(NAME)
    hub.requests.clear()
    assert find(NAME) == first
    assert hub.requests == []


def test_a_copy_of_another_program_is_used(hub: FakeHub, shipped: dict[str, bytes], tmp_path: Path) -> None:
    """huggingface_hub finds what we download, so the layout is its own."""
    commit = hub.add(NAME, shipped)
    found = find_hub_model(NAME, endpoint=hub.address, cache=tmp_path)
    from huggingface_hub import snapshot_download, try_to_load_from_cache

    assert try_to_load_from_cache(NAME, UNET, cache_dir=tmp_path) == str(found.folder / UNET)
    assert snapshot_download(NAME, cache_dir=tmp_path, local_files_only=True) == str(found.folder)
    assert (found.folder / UNET).resolve().parent.name == "blobs"
    assert (tmp_path / "models--someone--shoes" / "refs" / "main").read_text() == commit


def test_one_file_is_fetched_alone_and_found_again_without_asking_anyone(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("lcm/lora", {"README.md": b"# LCM", "pytorch_lora_weights.safetensors": b"weights"})
    where = {"endpoint": hub.address, "cache": tmp_path}
    file = find_hub_file("lcm/lora", "pytorch_lora_weights.safetensors", **where)
    assert file.read_bytes() == b"weights"
    assert hub.fetched() == ["pytorch_lora_weights.safetensors"]
    hub.requests.clear()
    assert find_hub_file("lcm/lora", "pytorch_lora_weights.safetensors", **where) == file
    assert hub.requests == []
    with pytest.raises(ModelError, match=r"lcm/lora has no file other\.safetensors"):
        find_hub_file("lcm/lora", "other.safetensors", **where)


def test_where_links_are_not_allowed_files_are_moved(
    hub: FakeHub, find: Find, shipped: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(1314, "A required privilege is not held by the client")

    hub.add(NAME, shipped)
    monkeypatch.setattr(Path, "symlink_to", refuse)
    found = find(NAME)
    assert files_of(found.folder) == shipped
    assert not any(path.is_symlink() for path in found.folder.rglob("*"))


def test_a_cut_connection_goes_on_where_it_was_cut(hub: FakeHub, find: Find, shipped: dict[str, bytes]) -> None:
    hub.add(NAME, shipped)
    hub.cut_after[UNET] = [1_000_000, 2_000_000]
    found = find(NAME)
    assert [r.range for r in hub.requests if r.file == UNET] == [None, "bytes=1000000-", "bytes=3000000-"]
    assert files_of(found.folder) == shipped


def test_a_server_that_knows_no_ranges_sends_all_again(hub: FakeHub, find: Find, shipped: dict[str, bytes]) -> None:
    hub.add(NAME, shipped)
    hub.cut_after[UNET] = [1_000_000]
    hub.no_ranges = True
    progress: list[DownloadProgress] = []
    found = find(NAME, DownloadWatcher(progress.append))
    assert files_of(found.folder) == shipped
    assert progress[-1].done_bytes == progress[-1].total_bytes


def test_a_busy_server_is_asked_again(hub: FakeHub, find: Find, shipped: dict[str, bytes]) -> None:
    hub.add(NAME, shipped)
    hub.statuses[UNET] = [503, 429]
    assert files_of(find(NAME).folder) == shipped


def test_attempts_that_bring_nothing_end_and_the_next_try_goes_on(
    hub: FakeHub, find: Find, shipped: dict[str, bytes]
) -> None:
    hub.add(NAME, shipped)
    hub.cut_after[UNET] = [1_000_000, 0, 0, 0, 0, 0]
    with pytest.raises(ModelError, match=r"stopped at unet/.*5 attempts .* failed .* are kept"):
        find(NAME)
    assert len([r for r in hub.requests if r.file == UNET]) == 6
    hub.requests.clear()
    assert files_of(find(NAME).folder) == shipped
    assert (hub.requests[1].file, hub.requests[1].range) == (UNET, "bytes=1000000-")  # what came before it is here


@pytest.mark.usefixtures("reports_always")
def test_a_cancelled_download_keeps_what_has_arrived(hub: FakeHub, find: Find, shipped: dict[str, bytes]) -> None:
    hub.add(NAME, shipped)
    with pytest.raises(DownloadCancelledError, match="continues from there"):
        find(NAME, cancel_in(UNET))
    hub.requests.clear()
    progress: list[DownloadProgress] = []
    assert files_of(find(NAME, DownloadWatcher(progress.append)).folder) == shipped
    request = hub.requests[1]  # the first asks what there is
    assert request.file == UNET
    assert request.range is not None
    start = int(request.range.removeprefix("bytes=").rstrip("-"))
    assert 0 < start < len(shipped[UNET])
    assert progress[0].done_bytes > start


@pytest.mark.usefixtures("reports_always")
@pytest.mark.parametrize("pinned", [False, True])
def test_half_a_model_is_not_taken_for_a_whole_one(
    hub: FakeHub, find: Find, shipped: dict[str, bytes], pinned: bool
) -> None:
    commit = hub.add(NAME, shipped)
    name = f"{NAME}@{commit}" if pinned else NAME
    with pytest.raises(DownloadCancelledError):
        find(name, cancel_in(UNET))
    assert files_of(find(name).folder) == shipped


def test_a_download_can_be_cancelled_while_it_waits_to_try_again(
    hub: FakeHub, find: Find, shipped: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.engine.hub_download.RETRY_SECONDS", 60.0)
    hub.add(NAME, shipped)
    hub.cut_after[UNET] = [0]
    with pytest.raises(DownloadCancelledError):
        find(NAME, DownloadWatcher(cancelled=lambda: UNET in hub.fetched()))
    assert UNET in hub.fetched()


def test_progress_counts_all_files_and_never_goes_back(
    hub: FakeHub, find: Find, shipped: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.engine.hub_download.REPORT_SECONDS", 0.0)
    hub.add(NAME, shipped)
    hub.cut_after[UNET] = [1_000_000]
    progress: list[DownloadProgress] = []
    find(NAME, DownloadWatcher(progress.append))
    total = sum(map(len, shipped.values()))
    done = [seen.done_bytes for seen in progress]
    assert {seen.total_bytes for seen in progress} == {total}
    assert done == sorted(done)
    assert done[-1] == total
    assert {UNET, VAE, TEXT_ENCODER} <= {seen.file for seen in progress}
    assert progress[-1].elapsed_seconds > 0


def test_progress_is_told_at_most_five_times_a_second(hub: FakeHub, find: Find, shipped: dict[str, bytes]) -> None:
    hub.add(NAME, shipped)
    progress: list[DownloadProgress] = []
    started = time.monotonic()
    find(NAME, DownloadWatcher(progress.append))
    assert 1 <= len(progress) <= 2 + 5 * (time.monotonic() - started)


def test_a_model_that_does_not_fit_the_disk_is_not_begun(hub: FakeHub, find: Find, shipped: dict[str, bytes]) -> None:
    hub.add(NAME, shipped)
    hub.sizes[UNET] = 2**60
    with pytest.raises(ModelError, match=r"needs 107374182\d\.\d GB of disk .* are free"):
        find(NAME)
    assert hub.fetched() == ["model_index.json"]


def test_some_room_is_left_on_the_disk(
    hub: FakeHub, find: Find, shipped: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)
    needed = sum(map(len, shipped.values())) - len(shipped["model_index.json"]) + 2**30
    hub.add(NAME, shipped)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=needed - 1))
    with pytest.raises(ModelError, match="of disk"):
        find(NAME)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=needed))
    find(NAME)


def test_a_pinned_revision_is_used(hub: FakeHub, find: Find, shipped: dict[str, bytes]) -> None:
    old = hub.add(NAME, {**shipped, "tokenizer/extra.json": b'"old"'})
    new = hub.add(NAME, {**shipped, "tokenizer/extra.json": b'"new"'})
    found = find(f"{NAME}@{old}")
    assert found.revision == old
    assert (found.folder / "tokenizer" / "extra.json").read_bytes() == b'"old"'
    hub.requests.clear()
    assert find(NAME).revision == new
    assert hub.fetched() == ["tokenizer/extra.json"]  # the rest is the same in both
    hub.requests.clear()
    assert find(f"{NAME}@{old}").revision == old
    assert hub.requests == []


def test_files_are_asked_for_by_commit_and_not_by_branch(hub: FakeHub, find: Find, shipped: dict[str, bytes]) -> None:
    commit = hub.add(NAME, shipped, branch="fp32")
    assert find(f"{NAME}@fp32").revision == commit
    assert all(f"/resolve/{commit}/" in r.path for r in hub.requests if r.file)


@pytest.mark.parametrize("revision", ["../../x", "a b", "a/", "/etc", ""])
def test_what_is_no_revision_is_refused(find: Find, hub: FakeHub, revision: str) -> None:
    with pytest.raises(ModelError, match="is no revision"):
        find(f"{NAME}@{revision}")
    assert hub.requests == []


def test_a_revision_that_does_not_exist_is_named(hub: FakeHub, find: Find, shipped: dict[str, bytes]) -> None:
    hub.add(NAME, shipped)
    with pytest.raises(ModelError, match="has no revision v9"):
        find(f"{NAME}@v9")


def test_a_model_that_does_not_exist_is_said_not_to(find: Find) -> None:
    with pytest.raises(ModelError, match="there is no model of this name, or it is private"):
        find("someone/nothing")


def test_a_gated_model_says_what_to_do(hub: FakeHub, find: Find, shipped: dict[str, bytes]) -> None:
    hub.add(NAME, shipped)
    hub.gated.add(NAME)
    with pytest.raises(ModelError, match="accept terms first"):
        find(NAME)


def test_the_seed_reports_model_is_found_under_its_new_name(
    hub: FakeHub, find: Find, shipped: dict[str, bytes]
) -> None:
    hub.add("stable-diffusion-v1-5/stable-diffusion-v1-5", shipped)
    found = find("runwayml/stable-diffusion-v1-5")
    assert found.repository == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert found.notes == (
        "runwayml/stable-diffusion-v1-5 is no longer on Hugging Face; stable-diffusion-v1-5/stable-diffusion-v1-5 is "
        "the same model and was used.",
    )
    assert not [r for r in hub.requests if "runwayml" in r.path]


def test_half_precision_files_are_taken_where_there_are_no_others(
    hub: FakeHub, find: Find, shipped: dict[str, bytes]
) -> None:
    renamed = {name.replace("model.safetensors", "model.fp16.safetensors"): c for name, c in shipped.items()}
    hub.add(NAME, renamed)
    assert files_of(find(NAME).folder) == renamed


def test_a_model_of_pickles_is_refused_with_the_reason(hub: FakeHub, find: Find, shipped: dict[str, bytes]) -> None:
    pickles = {name.replace(".safetensors", ".bin"): content for name, content in shipped.items()}
    hub.add(NAME, pickles)
    with pytest.raises(ModelError, match=r"only as a pickle .*can run any program"):
        find(NAME)
    assert hub.fetched() == ["model_index.json"]


@pytest.mark.parametrize("file", [UNET, "unet/config.json", "scheduler/scheduler_config.json", "tokenizer/vocab.json"])
def test_a_model_that_lacks_a_file_is_refused_before_the_download(
    hub: FakeHub, find: Find, shipped: dict[str, bytes], file: str
) -> None:
    hub.add(NAME, {k: v for k, v in shipped.items() if k not in (file, "tokenizer/tokenizer.json")})
    with pytest.raises(ModelError, match=f"has no {file}"):
        find(NAME)
    assert hub.fetched() == ["model_index.json"]


def test_another_kind_of_model_is_refused_before_the_download(
    hub: FakeHub, find: Find, shipped: dict[str, bytes]
) -> None:
    hub.add(NAME, shipped | {"model_index.json": json.dumps({"_class_name": "StableDiffusionXLPipeline"}).encode()})
    with pytest.raises(ModelError, match="is a StableDiffusionXLPipeline"):
        find(NAME)
    assert hub.fetched() == ["model_index.json"]


def test_a_repository_without_an_index_says_what_to_do(hub: FakeHub, find: Find) -> None:
    hub.add(NAME, {"shoes.safetensors": b""})
    with pytest.raises(ModelError, match=r"has no model_index\.json.*download that file and give its path"):
        find(NAME)


def test_a_file_that_arrives_damaged_is_thrown_away(hub: FakeHub, find: Find, shipped: dict[str, bytes]) -> None:
    hub.add(NAME, shipped)
    for file in ("unet/config.json", UNET):  # git's kind of digest, then SHA-256
        hub.swapped = {file: b"x" * len(shipped[file])}
        with pytest.raises(ModelError, match=f"{file} of {NAME} arrived damaged"):
            find(NAME)
    hub.swapped = {}
    assert files_of(find(NAME).folder) == shipped


def test_a_login_page_is_not_taken_for_the_hub(hub: FakeHub, find: Find) -> None:
    hub.captive = True
    with pytest.raises(ModelError, match="A login page of your network"):
        find(NAME)


@pytest.mark.parametrize("digest", ["../../escaped", "", "abc"])
def test_a_digest_that_is_none_never_becomes_a_path(
    hub: FakeHub, find: Find, shipped: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, digest: str
) -> None:
    hub.add(NAME, shipped)
    monkeypatch.setattr("tests.engine.hub_server._digests", lambda _: {"blobId": digest})
    with pytest.raises(ModelError, match="what answered is not it"):
        find(NAME)
    assert hub.fetched() == []


def test_a_commit_that_is_none_never_becomes_a_path(hub: FakeHub, find: Find, shipped: dict[str, bytes]) -> None:
    hub.models[NAME] = {"../../escaped": shipped}
    hub.branches[NAME, "main"] = "../../escaped"
    with pytest.raises(ModelError, match="what answered is not it"):
        find(NAME)
    assert hub.fetched() == []


def test_offline_says_what_to_do(find: Find, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"HF_HUB_OFFLINE is set\. Go online once to download it, give the folder"):
        find(NAME)
    assert hub.requests == []


def test_a_hub_that_cannot_be_reached_says_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nothing answers
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ModelError, match=r"cannot be reached \(ConnectError\). Go online once to download it"):
            find_hub_model(NAME, endpoint=endpoint, cache=tmp_path)


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "all_proxy"])
def test_a_proxy_of_an_unknown_kind_is_named_without_its_password(
    find: Find, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv(variable, "socks://me:secret@127.0.0.1:9/")
    with pytest.raises(
        ModelError, match=f"the proxy in {variable.upper()} must begin with one of .*, got socks://. "
    ) as reported:
        find(NAME)
    assert "secret" not in str(reported.value)
    assert hub.requests == []


@pytest.mark.parametrize("proxy", ["http://[::1", "me:secret:x", ":", "//", "http://", "socks5://", "http://a:99999"])
def test_a_proxy_that_is_no_address_is_named_without_its_password(
    find: Find, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("https_proxy", proxy)
    with pytest.raises(ModelError, match="the proxy in HTTPS_PROXY must be an address such as ") as reported:
        find(NAME)
    assert "secret" not in str(reported.value)
    assert hub.requests == []


@pytest.mark.parametrize(
    "proxy", ["http://127.0.0.1:9", "127.0.0.1:9", "SOCKS5://127.0.0.1:9", "socks5h://127.0.0.1:9"]
)
def test_proxies_of_known_kinds_are_well(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("all_proxy", proxy)
    assert unusable_proxy() == ""


def test_a_proxy_that_is_not_used_may_be_of_any_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "*")
    assert unusable_proxy() == ""


def test_a_download_goes_through_the_proxy_that_is_set(
    hub: FakeHub, shipped: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The Hub itself stands in for one: there is no other way to a host of this name."""
    hub.add(NAME, shipped)
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, hub.address)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "ours.example,[::1],::1")
    close_session()  # it read the environment when it was made
    try:
        found = find_hub_model(NAME, endpoint="http://hub.example", cache=tmp_path)
    finally:
        close_session()
    assert (found.folder / UNET).read_bytes() == shipped[UNET]
    assert len(hub.requests) > len(PARTS)


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "no such file"), (b"", "no certificate"), (b"not one", "no certificate")]
)
def test_certificates_that_cannot_be_read_are_named_before_anyone_is_asked(
    find: Find, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(ModelError, match="SSL_CERT_FILE must name a file of certificates") as reported:
        find(NAME)
    assert f"got {file} (" in str(reported.value)
    assert reason in str(reported.value).lower().replace("_", " ")
    assert hub.requests == []


def test_two_programs_do_not_download_the_same_model_at_once(
    hub: FakeHub, find: Find, shipped: dict[str, bytes], tmp_path: Path
) -> None:
    hub.add(NAME, shipped)
    lock = tmp_path / "hub" / ".locks" / "models--someone--shoes" / "lora-studio.lock"
    lock.parent.mkdir(parents=True)
    with FileLock(lock), pytest.raises(ModelError, match="Another program is downloading"):
        find(NAME)
    assert hub.fetched() == []


def test_tokens_are_sent_and_never_said(
    hub: FakeHub,
    find: Find,
    shipped: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_thisIsSecret")
    caplog.set_level(logging.DEBUG)
    hub.add(NAME, shipped)
    hub.cut_after[UNET] = [0] * 6
    with pytest.raises(ModelError) as caught:
        find(NAME)
    assert {r.authorization for r in hub.requests} == {"Bearer hf_thisIsSecret"}
    assert "hf_thisIsSecret" not in caplog.text + str(caught.value)
    assert "broke off" in caplog.text


def test_tokens_are_not_sent_on_to_where_the_files_lie(
    hub: FakeHub, find: Find, shipped: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_thisIsSecret")
    hub.add(NAME, shipped)
    with fake_hub() as elsewhere:
        elsewhere.add(NAME, shipped)
        elsewhere.cut_after[UNET] = [1_000_000]
        hub.delivery = elsewhere.address
        assert files_of(find(NAME).folder) == shipped
        assert {r.authorization for r in elsewhere.requests} == {None}
        assert [r.range for r in elsewhere.requests if r.file == UNET] == [None, "bytes=1000000-"]


def test_files_are_asked_for_as_they_are(hub: FakeHub, find: Find, shipped: dict[str, bytes]) -> None:
    """A range of a compressed file would be of other bytes."""
    hub.add(NAME, shipped)
    find(NAME)
    assert {r.encoding for r in hub.requests if r.file} == {"identity"}


def test_a_file_that_someone_deleted_is_fetched_again(hub: FakeHub, find: Find, shipped: dict[str, bytes]) -> None:
    hub.add(NAME, shipped)
    unet = find(NAME).folder / UNET
    unet.resolve().unlink()
    hub.requests.clear()
    assert files_of(find(NAME).folder) == shipped
    assert hub.fetched() == [UNET]
    assert unet.is_symlink()


def test_addresses_are_not_logged(
    hub: FakeHub, find: Find, shipped: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    hub.add(NAME, shipped)
    find(NAME)
    assert "/resolve/" not in caplog.text


def run_apart(code: str, hub: FakeHub, home: Path, **environment: str) -> list[str]:
    """Run code in a fresh process that knows the hub by its environment alone, as users set it."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_ENDPOINT": hub.address, "HF_HOME": str(home), "OMP_NUM_THREADS": "1", **environment},
        cwd=CHECKOUT_FOLDER,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


LOAD = f"""
from studio.engine.models import load_components
from studio.engine.model_files import find_model
from studio.core.errors import ModelError
try:
    found = find_model("{NAME}")
    print(found.revision, load_components(found, "float32").num_parameters(), *found.notes)
except ModelError as error:
    print(error)
"""


@pytest.mark.process
def test_a_downloaded_model_loads_and_loads_again_offline(
    hub: FakeHub, shipped: dict[str, bytes], tmp_path: Path
) -> None:
    commit = hub.add(NAME, shipped)
    line = run_apart(LOAD, hub, tmp_path, HF_HUB_OFFLINE="0")[-1]
    assert line == run_apart(LOAD, hub, tmp_path, HF_HUB_OFFLINE="1")[-1]
    revision, parameters = line.split()
    assert revision == commit
    assert int(parameters) > 10_000_000


@pytest.mark.process
def test_a_model_of_half_precision_files_loads_and_says_so(
    hub: FakeHub, shipped: dict[str, bytes], tmp_path: Path
) -> None:
    names = {UNET, TEXT_ENCODER}
    hub.add(NAME, {k.replace(".safetensors", ".fp16.safetensors") if k in names else k: shipped[k] for k in shipped})
    line = run_apart(LOAD, hub, tmp_path, HF_HUB_OFFLINE="0")[-1]
    assert "has its unet and text_encoder in float16 files only (.fp16.safetensors)" in line


@pytest.mark.process
def test_finding_a_hub_model_needs_no_torch() -> None:
    code = "import sys, studio.engine.hub; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT_FOLDER, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
