"""Making images as a person does: the form, past images, dropped images and LoRAs, in a real browser."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Page, expect
from safetensors.numpy import load_file, save_file

from studio.images.files import read_picture_text
from studio.loras.library import shipped_loras
from tests.browser.conftest import OpenPage
from tests.browser.page_actions import (
    FEW_STEPS,
    activity,
    cards,
    choose,
    drop_files,
    expect_nothing_asked,
    field,
    field_error,
    generate_quickly,
    generate_to_end,
    offered,
    open_loras,
    open_mode,
    open_section,
    press_generate,
    save_links,
    saved_names,
    set_field,
    start_generating,
    tick,
    toast,
    wait_until_ready,
)
from tests.browser.studio_process import RunningStudio

A1111_TEXT = """a green high heel, studio light
Negative prompt: blurry, text
Steps: 21, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6, Seed: 1234, Size: 512x768, Model: dreamlike"""
A1111_FORM = {
    "generate-prompt": "a green high heel, studio light",
    "generate-negative": "blurry, text",
    "generate-num-inference-steps": "21",
    "generate-scheduler": "DPM++ 2M Karras",
    "generate-guidance-scale": "6",
    "generate-seed": "1234",
    "generate-width": "512",
    "generate-height": "768",
}
USER_COMMENT, EXIF_FOLDER = 0x9286, 0x8769


@pytest.fixture
def page(studio: RunningStudio, open_page: OpenPage) -> Page:
    """A page with the Generate mode open."""
    opened = open_page(studio)
    open_mode(opened, "Generate")
    return opened


@pytest.fixture
def library(studio: RunningStudio) -> Iterator[Path]:
    """The folder of added LoRAs and votes, empty before and after a test."""
    _empty(studio.user_data.loras)
    yield studio.user_data.loras
    _empty(studio.user_data.loras)


def _empty(folder: Path) -> None:
    for file in folder.glob("*.*"):
        file.unlink()


def saved_files(page: Page, studio: RunningStudio) -> list[Path]:
    """The files of the images that the page shows."""
    return [next(studio.user_data.outputs.glob(f"*/{name}")) for name in saved_names(page)]


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))


def border_mean(file: Path) -> float:
    """The mean of an image's border, 6 pixels wide, in 0 to 255."""
    inside = np.zeros((128, 128), bool)
    inside[6:-6, 6:-6] = True
    return float(pixels(file)[~inside].mean())


def expect_form(page: Page, values: dict[str, str]) -> None:
    """The controls that can be seen say these values."""
    open_section(page, "Advanced")
    for name, value in values.items():
        expect(field(page, name)).to_have_value(value)


def test_one_press_makes_a_checked_picture_that_is_saved_with_its_settings(
    studio: RunningStudio, page: Page, tmp_path: Path
) -> None:
    generate_quickly(page, "blue boots, (snow:1.2)")
    expect(cards(page)).to_have_count(1)
    (file,) = saved_files(page, studio)
    settings = read_picture_text(file).settings
    expect(cards(page)).to_contain_text(re.compile(rf"✓ latents\s*✓ decoded\s*✓ image.*seed {settings.seed}", re.S))
    expect(field(page, "generate-seed")).to_have_value(str(settings.seed))
    assert (settings.prompt, settings.num_inference_steps) == ("blue boots, (snow:1.2)", FEW_STEPS)
    assert cards(page).get_by_role("img").evaluate("image => image.naturalWidth") == 128
    with page.expect_download() as download:
        save_links(page).click()
    download.value.save_as(tmp_path / "saved.png")
    assert (tmp_path / "saved.png").read_bytes() == file.read_bytes()


def test_control_and_enter_generate_and_escape_cancels(page: Page) -> None:
    set_field(page, "generate-num-inference-steps", 150)
    field(page, "generate-prompt").press("Control+Enter")
    expect(cards(page).get_by_role("progressbar", name="Steps")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#generate-state")).to_contain_text("0 of 1 image made, checked and saved. Cancelled.")
    expect(page.locator("#cancel-generate")).to_be_disabled()
    expect(page.locator("#run-generate")).to_be_enabled()


def test_presses_queue_up_and_cancel_ends_one_of_them(page: Page) -> None:
    start_generating(page)
    queued = page.locator(".run-queue li")
    for number, prompt in enumerate(("red boots <lora:nosuch>", "blue sandals"), start=1):
        set_field(page, "generate-prompt", prompt)
        press_generate(page)
        expect(queued).to_have_count(number)
    expect(queued.nth(1)).to_contain_text(re.compile(r"2 of 2\s*blue sandals\s*1 image · seed \d+"))
    queued.nth(0).get_by_role("button").click()
    expect(queued).to_have_count(1)
    set_field(page, "generate-prompt", "red boots <lora:nosuch>")
    expect(page.locator(".chip")).to_contain_text(re.compile(r"nosuch\s*not in the library"))
    page.locator(".chip").get_by_role("button", name="Remove nosuch").click()
    expect(field(page, "generate-prompt")).to_have_value("red boots")
    page.locator("#cancel-generate").click()
    expect(queued).to_have_count(0)
    expect(page.locator("#generate-state")).to_contain_text("Running.")
    page.locator("#cancel-generate").click()
    expect(page.locator("#generate-state")).to_contain_text("Cancelled.")


def test_a_chip_always_says_the_strength_that_is_used(page: Page) -> None:
    prompt, box = field(page, "generate-prompt"), page.locator(".chip input")
    set_field(page, "generate-prompt", "red boots <lora:white-ground:0.5>")
    for typed, used in (("9", "4"), ("", "4"), ("-9", "-4"), ("0.25", "0.25")):
        box.fill(typed)
        box.press("Enter")
        expect(box).to_have_value(used)
        expect(prompt).to_have_value(f"red boots <lora:white-ground:{used}>")
    set_field(page, "generate-prompt", "red boots")
    choose(page, "generate-lora-0", "white-ground")
    for typed, used in (("3", "3"), ("-9", "-4")):
        box.fill(typed)
        box.press("Enter")
        expect(box).to_have_value(used)
        expect(field(page, "generate-strength-0")).to_have_value(used)
    choose(page, "generate-lora-0", "none")


def test_escape_closes_an_open_list_and_the_run_goes_on(page: Page) -> None:
    start_generating(page)
    field(page, "generate-lora-0").click()
    expect(page.get_by_role("option").first).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("option")).to_have_count(0)
    page.wait_for_timeout(500)
    expect(page.locator("#generate-state")).to_contain_text("Running.")
    page.keyboard.press("Escape")
    expect(page.locator("#generate-state")).to_contain_text("Cancelled.")


def test_several_images_have_consecutive_seeds(studio: RunningStudio, page: Page) -> None:
    set_field(page, "generate-num-images", 3)
    generate_quickly(page, "brown boots", seed=500)
    expect(page.locator("#generate-state")).to_contain_text("3 of 3 images made")
    seeds = [read_picture_text(file).settings.seed for file in saved_files(page, studio)]
    assert seeds == [500, 501, 502]
    for index, seed in enumerate(seeds):
        expect(cards(page).nth(index)).to_contain_text(f"seed {seed}")


def test_without_new_seed_each_time_the_same_picture_comes_again(studio: RunningStudio, page: Page) -> None:
    generate_quickly(page, "brown boots", seed=7)
    (first,) = saved_files(page, studio)
    generate_to_end(page)
    (second,) = saved_files(page, studio)
    assert first != second
    assert np.array_equal(pixels(first), pixels(second))
    tick(page, "generate-new-seed", on=True)
    generate_to_end(page)
    (third,) = saved_files(page, studio)
    assert not np.array_equal(pixels(first), pixels(third))


def test_the_tokens_are_counted_and_what_is_cut_off_is_told_in_words(page: Page) -> None:
    tokens = page.locator("#generate-tokens")
    set_field(page, "generate-prompt", "red shoes")
    expect(tokens).to_have_text("2 of 75 tokens")
    set_field(page, "generate-prompt", "red " * 75 + "shoes on grass")
    expect(tokens).to_contain_text(re.compile(r"78 of 75 tokens\. Cut off: “\s*shoes on grass”"))
    open_section(page, "Advanced")
    page.get_by_label("Long prompts").check()
    expect(tokens).to_have_text("78 tokens in 2 parts of 75")


def test_a_dropped_picture_of_ours_fills_the_form(studio: RunningStudio, page: Page) -> None:
    open_section(page, "Advanced")
    choose(page, "generate-scheduler", "Euler")
    generate_quickly(page, "purple sandals", seed=77)
    (file,) = saved_files(page, studio)
    page.reload()
    wait_until_ready(page)
    open_mode(page, "Generate")
    open_section(page, "Load settings from an image")
    drop_files(page, "drop-picture", file)
    expect(page.locator("#dropped-words")).to_contain_text(
        f"The settings of {file.name} (LoRA Studio) are in the form."
    )
    expect_form(
        page,
        {
            "generate-prompt": "purple sandals",
            "generate-num-inference-steps": str(FEW_STEPS),
            "generate-seed": "77",
            "generate-scheduler": "Euler",
        },
    )
    generate_to_end(page)
    (again,) = saved_files(page, studio)
    assert np.array_equal(pixels(file), pixels(again))


def a1111_picture(folder: Path, ending: str) -> Path:
    """A grey image with A1111's text, as PNG or as JPEG."""
    file, picture = folder / f"00012-1234.{ending}", Image.new("RGB", (64, 64), "grey")
    if ending == "png":
        texts = PngInfo()
        texts.add_text("parameters", A1111_TEXT)
        picture.save(file, pnginfo=texts)
    else:
        exif = Image.Exif()
        exif.get_ifd(EXIF_FOLDER)[USER_COMMENT] = b"UNICODE\0" + A1111_TEXT.encode("utf-16-be")
        picture.save(file, exif=exif)
    return file


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_dropped_picture_of_a1111_fills_the_form(page: Page, tmp_path: Path, ending: str) -> None:
    open_section(page, "Load settings from an image")
    drop_files(page, "drop-picture", a1111_picture(tmp_path, ending))
    expect(page.locator("#dropped-words")).to_contain_text("(A1111) are in the form. It was made with dreamlike.")
    expect_form(page, A1111_FORM)
    expect(page.locator("#generate-new-seed input")).not_to_be_checked()


def test_a_dropped_picture_without_settings_says_so_and_the_next_drop_is_taken(page: Page, tmp_path: Path) -> None:
    plain = tmp_path / "holiday.png"
    Image.new("RGB", (64, 64), "grey").save(plain)
    before = field(page, "generate-prompt").input_value()
    open_section(page, "Load settings from an image")
    drop_files(page, "drop-picture", plain)
    expect(page.locator("#dropped-words")).to_contain_text("holiday.png cannot tell how it was made")
    expect(field(page, "generate-prompt")).to_have_value(before)
    expect(page.locator("#drop-picture")).to_contain_text("Drop File Here")
    drop_files(page, "drop-picture", a1111_picture(tmp_path, "png"))
    expect(field(page, "generate-prompt")).to_have_value(A1111_FORM["generate-prompt"])


def test_a_past_picture_is_shown_large_and_its_settings_are_used_again(page: Page) -> None:
    generate_quickly(page, "golden slippers", seed=4321)
    generate_quickly(page, "brown boots", seed=5)
    strip, large = page.locator(".past-strip"), page.locator("#generate-pictures")
    strip.locator(".past-open").nth(1).click()
    expect(large.get_by_role("img", name="golden slippers")).to_be_visible()
    assert large.locator(".zoom img").bounding_box()["width"] > 256
    tick(page, "generate-new-seed", on=True)
    large.get_by_role("button", name="Reuse all").click()
    expect(field(page, "generate-prompt")).to_have_value("golden slippers")
    expect(field(page, "generate-seed")).to_have_value("4321")
    expect(page.locator("#generate-new-seed input")).not_to_be_checked()
    expect(strip.locator(".past-open").nth(1)).to_have_attribute("aria-current", "true")
    set_field(page, "history-search", "Golden")
    expect(strip.locator(".past-open")).to_have_count(1)
    set_field(page, "history-search", "no such words")
    expect(page.locator("#generate-strip")).to_contain_text("No image matches all of these words")
    press_generate(page)
    expect(large.get_by_text("A past image.")).to_have_count(0)


def test_a_past_image_that_is_opened_large_leads_through_the_strip(page: Page) -> None:
    generate_quickly(page, "golden slippers", seed=4321)
    generate_quickly(page, "brown boots", seed=5)
    strip, shown = page.locator(".past-strip .past-open"), page.locator("#generate-pictures")
    strip.nth(0).click()
    expect(shown).to_contain_text("A past image.")
    shown.locator(".zoom").click()
    large = page.locator("dialog.lightbox img")
    expect(large).to_have_attribute("alt", "brown boots")
    page.keyboard.press("ArrowRight")
    expect(large).to_have_attribute("alt", "golden slippers")
    expect(strip.nth(1)).to_have_attribute("aria-current", "true")
    expect(large).to_have_attribute("src", str(shown.locator(".zoom img").get_attribute("src")))
    page.keyboard.press("ArrowLeft")
    expect(large).to_have_attribute("alt", "brown boots")


def another_lora(folder: Path, name: str) -> Path:
    """The LoRA that ships under another name, with other metadata."""
    file = folder / f"{name}.safetensors"
    metadata = {"modelspec.description": "The same once more.", "ss_sd_model_name": "shoes-demo"}
    save_file(load_file(shipped_loras() / "white-ground.safetensors"), file, metadata=metadata)
    return file


def test_a_dropped_lora_gets_a_card_and_is_offered(page: Page, library: Path, tmp_path: Path) -> None:
    open_loras(page)
    drop_files(page, "drop-lora", another_lora(tmp_path, "second ground"))
    expect(page.locator("#lora-words")).to_contain_text("second ground was added to the library.")
    card = page.locator(".lora-card", has=page.get_by_role("heading", name="second ground", exact=True))
    expect(card).to_contain_text("The same once more.")
    expect(card).to_contain_text("rank 8")
    assert (library / "second ground.safetensors").is_file()
    open_mode(page, "Generate")
    assert offered(page, "generate-lora-0") == ["none", "second ground", "white-ground"]
    open_mode(page, "Compare")
    assert offered(page, "compare-lora-0") == ["base", "second ground", "white-ground"]


def test_an_added_lora_is_checked_against_the_model_and_its_card_says_so(
    page: Page, library: Path, tmp_path: Path
) -> None:
    open_loras(page)
    drop_files(page, "drop-lora", another_lora(tmp_path, "checked ground"))
    card = page.locator(".lora-card", has=page.get_by_role("heading", name="checked ground", exact=True))
    expect(card.locator(".good")).to_contain_text("✓")
    assert (library / "checked ground.safetensors").is_file()


def test_many_loras_have_pages_a_search_and_a_delete_of_their_own(page: Page, library: Path) -> None:
    library.mkdir(exist_ok=True)
    for number in range(30):
        (library / f"style {number:02}.safetensors").write_bytes(b"none")
    page.reload()
    open_mode(page, "Generate")
    open_loras(page)
    cards = page.locator("#lora-cards")
    expect(cards).to_contain_text("31 LoRAs, page 1 of 2")
    page.locator("#lora-next").click()
    expect(cards).to_contain_text("page 2 of 2")
    expect(cards.get_by_role("heading", name="white-ground")).to_be_visible()
    expect(cards.get_by_role("button", name="Delete white-ground")).to_have_count(0)
    set_field(page, "lora-search", "style 07")
    expect(cards).to_contain_text("1 LoRA, page 1 of 1")
    cards.get_by_role("button", name="Delete style 07").click()
    expect(page.locator("#lora-trash")).to_contain_text("Delete style 07?")
    page.locator("#lora-trash-really").click()
    expect(cards).to_contain_text("No LoRA has such a name or note.")
    assert len(list(library.glob("*.safetensors"))) == 29


def refused_file(folder: Path, kind: str) -> Path:
    """A file that is not taken into the library."""
    if kind == "ckpt":
        file = folder / "old.ckpt"
        file.write_bytes(b"PK\x03\x04" + bytes(200))
        return file
    file, name = folder / "xl.safetensors", "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    tensors = {f"{name}.lora_down.weight": (4, 2048), f"{name}.lora_up.weight": (640, 4)}
    save_file({key: np.zeros(shape, np.float16) for key, shape in tensors.items()}, file)
    return file


@pytest.mark.parametrize(
    ("kind", "words"), [("ckpt", "old.ckpt"), ("xl", "xl.safetensors is a LoRA for Stable Diffusion XL")]
)
def test_a_dropped_file_that_is_no_lora_for_this_model_is_refused(
    page: Page, library: Path, tmp_path: Path, kind: str, words: str
) -> None:
    open_loras(page)
    drop_files(page, "drop-lora", refused_file(tmp_path, kind))
    expect(page.locator("#lora-words").get_by_role("alert")).to_contain_text(words)
    expect(page.locator(".lora-card")).to_have_count(1)
    assert not list(library.glob("*.*"))
    open_mode(page, "Generate")
    assert offered(page, "generate-lora-0") == ["none", "white-ground"]


def test_a_chosen_lora_acts(studio: RunningStudio, page: Page) -> None:
    set_field(page, "generate-prompt", "red canvas sneakers, white background")
    set_field(page, "generate-guidance-scale", 4)
    set_field(page, "generate-seed", 500)
    tick(page, "generate-new-seed", on=False)
    generate_to_end(page)
    (base,) = saved_files(page, studio)
    choose(page, "generate-lora-0", "white-ground")
    generate_to_end(page)
    (white,) = saved_files(page, studio)
    assert border_mean(base) < 200
    assert border_mean(white) > 240
    assert [lora.name for lora in read_picture_text(white).settings.loras] == ["white-ground"]


def test_a_page_reloaded_in_mid_run_shows_the_run_and_then_its_pictures(page: Page) -> None:
    set_field(page, "generate-num-images", 2)
    start_generating(page, steps=60)
    expect(cards(page).get_by_role("progressbar", name="Steps")).to_be_visible()
    page.reload()
    open_mode(page, "Generate", idle=False)
    expect(page.locator("#generate-state")).to_contain_text("Running.")
    expect(cards(page)).to_have_count(2)
    expect(page.locator("#generate-state")).to_contain_text("2 of 2 images made")
    expect(save_links(page)).to_have_count(2)


def test_a_size_that_is_none_is_refused_with_the_rule(page: Page) -> None:
    set_field(page, "generate-width", 100)
    press_generate(page)
    expect(field_error(page, "generate-width")).to_contain_text(
        "Width must be a multiple of 8 between 64 and 2048, got 100."
    )
    expect(activity(page)).to_have_text("ready")


def test_a_guidance_out_of_bounds_is_refused_with_the_rule(page: Page) -> None:
    field(page, "generate-guidance-scale").fill("31")
    field(page, "generate-guidance-scale").press("Control+Enter")
    error = field_error(page, "generate-guidance-scale")
    expect(error).to_contain_text("Guidance must be a number between 1 and 30, got 31.")
    expect(activity(page)).to_have_text("ready")


def test_a_lora_that_is_not_there_is_told_of_and_the_next_run_works(page: Page) -> None:
    set_field(page, "generate-prompt", "red shoes <lora:nosuch:1>")
    set_field(page, "generate-num-inference-steps", FEW_STEPS)
    press_generate(page)
    problem = page.locator("#generate-state .problem")
    expect(problem).to_contain_text("There is no LoRA named nosuch in the library, which has: white-ground.")
    generate_quickly(page, "red shoes")
    expect(problem).to_have_count(0)
    expect(save_links(page)).to_have_count(1)


def test_the_modes_ask_for_nothing_when_nothing_runs(page: Page) -> None:
    generate_quickly(page, "red shoes")
    open_mode(page, "Compare")
    open_mode(page, "Generate")
    expect_nothing_asked(page)


def test_a_past_image_is_added_to_a_dataset_with_its_prompt(studio: RunningStudio, page: Page) -> None:
    generate_quickly(page, "a photo of a boot that is collected")
    page.locator("#generate-pictures [data-act=upload]").click()
    expect(toast(page)).to_contain_text("is in the dataset collected now (1 image).")
    folder = studio.user_data.datasets / "collected" / "files"
    assert [path.read_text() for path in folder.glob("*.txt")] == ["a photo of a boot that is collected\n"]
    assert len(list(folder.glob("*.png"))) == 1
