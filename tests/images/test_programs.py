"""An image of another program is known as that; its prompt is text here, and what is no settings is no prompt."""

import html
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from studio.core.errors import PictureFileError
from studio.core.settings import GenerationSettings
from studio.images.files import PARAMETERS_KEY, RECORD_KEY, encode_picture, read_picture_text
from studio.images.programs import COMMENT_KEY, decode_comment, read_program
from studio.images.prompts import parse_weights, plain_prompt, split_lora_tags
from tests.images.test_a1111 import A1111_TEXT, FULL, make_record
from tests.images.test_files import PICTURE, chunk, png_with, with_comment

PROMPT = r"a (red:1.2) [shoe] {very} fine++ <lora:x:1> C:\dir, \(new\)"
NEGATIVE = "dark (blurry:1.3)"


def graph(**changes: object) -> dict[str, object]:
    """A graph of ComfyUI's as its Save Image node keeps it, with a LoRA between checkpoint and sampler."""
    sampler = {"seed": 7, "steps": 20, "cfg": 6.5, "sampler_name": "euler", "positive": ["6", 0], "negative": ["7", 0]}
    sampler |= {"model": ["10", 0], "latent_image": ["5", 0]}
    return {
        "3": {"class_type": "KSampler", "inputs": {**sampler, **changes}},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd15.safetensors"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 768, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": PROMPT, "clip": ["10", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": NEGATIVE, "clip": ["10", 1]}},
        "10": {"class_type": "LoraLoader", "inputs": {"model": ["4", 0], "clip": ["4", 1], "lora_name": "x"}},
    }


def xmp(comment: object) -> str:
    text = html.escape(json.dumps(comment), quote=False)
    inner = f'<exif:UserComment><rdf:Alt><rdf:li xml:lang="x-default">{text}</rdf:li></rdf:Alt></exif:UserComment>'
    return f"<x:xmpmeta><rdf:RDF><xmp:CreatorTool>Draw Things</xmp:CreatorTool>{inner}</rdf:RDF></x:xmpmeta>"


SIZE = {"width": 512, "height": 768}
INVOKE = {"positive_prompt": PROMPT, "negative_prompt": NEGATIVE, "steps": 20, "seed": 7, "cfg_scale": 6.5, **SIZE}
INVOKE |= {"scheduler": "euler", "model": {"name": "sd15.safetensors"}}
NOVEL = {"prompt": PROMPT, "uc": NEGATIVE, "steps": 20, "seed": 7, "scale": 6.5, "sampler": "k_euler", **SIZE}
DRAW = {"c": PROMPT, "uc": NEGATIVE, "steps": 20, "seed": 7, "scale": 6.5, "size": "512x768", "sampler": "Euler A"}
FOOOCUS = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "steps": 20, "seed": "7", "guidance_scale": 6.5}
FOOOCUS |= {"resolution": "(512, 768)", "base_model": "sd15", "version": "Fooocus v2.5.5"}
SWARM = {"prompt": PROMPT, "negativeprompt": NEGATIVE, "steps": 20, "seed": 7, "cfgscale": 6.5, **SIZE}
EASY = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "num_inference_steps": 20, "seed": 7, "guidance_scale": 6.5}
EASY |= {**SIZE, "use_stable_diffusion_model": "sd15", "sampler_name": "euler"}

TEXTS = {
    "ComfyUI": {"prompt": json.dumps(graph()), "workflow": '{"nodes": []}'},
    "InvokeAI": {"invokeai_metadata": json.dumps(INVOKE), "invokeai_graph": "{}"},
    "NovelAI": {"Software": "NovelAI", "Description": PROMPT, "Comment": json.dumps(NOVEL)},
    "Draw Things": {"XML:com.adobe.xmp": xmp(DRAW)},
    "Fooocus": {"parameters": json.dumps(FOOOCUS), "fooocus_scheme": "fooocus"},
    "SwarmUI": {"parameters": json.dumps({"sui_image_params": SWARM}, indent=2)},
    "Easy Diffusion": {key: str(value) for key, value in EASY.items()},
}
# Whose round brackets weigh; the prompts of the others are text from end to end.
WEIGHING = {"ComfyUI", "SwarmUI", "Fooocus", "Draw Things"}


def png_of(path: Path, texts: dict[str, str]) -> Path:
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        (info.add_itxt if key.startswith("XML") else info.add_text)(key, text)
    Image.fromarray(PICTURE).save(path, pnginfo=info)
    return path


@pytest.mark.parametrize("program", TEXTS)
def test_a_programs_settings_are_taken_and_its_name_is_said(tmp_path: Path, program: str) -> None:
    read = read_picture_text(png_of(tmp_path / "p.png", TEXTS[program]))
    settings = read.settings
    assert (read.source, read.record) == (program, None)
    assert settings.model_copy(update={"prompt": "", "negative_prompt": ""}) == GenerationSettings(
        prompt="", num_inference_steps=20, guidance_scale=6.5, seed=7, width=512, height=768, long_prompt=True
    )
    assert "seed makes another image here" in read.skipped[0]


@pytest.mark.parametrize("program", TEXTS)
def test_a_foreign_prompt_is_text_but_for_the_weights_its_own_program_reads(tmp_path: Path, program: str) -> None:
    settings = read_picture_text(png_of(tmp_path / "p.png", TEXTS[program])).settings
    assert settings.loras == ()
    assert split_lora_tags(settings.prompt)[1] == ()
    weights = {part.text: part.weight for part in parse_weights(settings.prompt)}
    if program in WEIGHING:
        words = r"a red [shoe] {very} fine++ <lora:x:1> C:\dir, (new)"
        assert weights == {"a ": 1, "red": 1.2, words[5:]: 1}
        assert plain_prompt(settings.negative_prompt) == "dark blurry"
    else:
        assert weights == {PROMPT: 1}
        assert plain_prompt(settings.negative_prompt) == NEGATIVE


@pytest.mark.parametrize("ending", ["jpg", "webp"])
@pytest.mark.parametrize(
    ("program", "comment"),
    [
        ("ComfyUI", json.dumps({"prompt": graph()})),
        ("Fooocus", json.dumps(FOOOCUS)),
        ("SwarmUI", json.dumps({"sui_image_params": SWARM})),
        ("Easy Diffusion", json.dumps(EASY)),
    ],
)
def test_jpeg_and_webp_keep_it_in_exif(tmp_path: Path, ending: str, program: str, comment: str) -> None:
    file = with_comment(tmp_path / f"p.{ending}", b"UNICODE\0" + comment.encode("utf-16-le"))
    read = read_picture_text(file)
    assert (read.source, read.settings.seed, read.settings.height) == (program, 7, 768)


def test_comfyuis_webp_keeps_its_graph_in_other_tags(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = 'workflow:{"nodes": []}', f"prompt:{json.dumps(graph())}"
    Image.fromarray(PICTURE).save(tmp_path / "p.webp", exif=exif)
    read = read_picture_text(tmp_path / "p.webp")
    assert (read.source, read.settings.seed, read.model) == ("ComfyUI", 7, "sd15.safetensors")


@pytest.mark.parametrize("ending", ["jpg", "webp"])
def test_draw_things_keeps_it_in_xmp(tmp_path: Path, ending: str) -> None:
    Image.fromarray(PICTURE).save(tmp_path / f"p.{ending}", xmp=xmp(DRAW).encode())
    read = read_picture_text(tmp_path / f"p.{ending}")
    assert (read.source, read.settings.seed, read.settings.height) == ("Draw Things", 7, 768)


@pytest.mark.parametrize(
    ("program", "texts"),
    [
        ("ComfyUI", {"workflow": '{"nodes": [], "links": []}'}),
        ("ComfyUI", {"prompt": '{"1": {"class_type": "SaveImage", "inputs": {}}}'}),
        ("ComfyUI", {"prompt": json.dumps(graph(positive=["3", 0]))}),  # goes round
        ("InvokeAI", {"sd-metadata": '{"image": {}}'}),
        ("InvokeAI", {"Dream": '"a shoe" -s 20'}),
        ("NovelAI", {"Software": "NovelAI", "Comment": "{"}),
        ("Draw Things", {"XML:com.adobe.xmp": "<xmp:CreatorTool>Draw Things</xmp:CreatorTool>"}),
        ("Fooocus", {"fooocus_scheme": "fooocus", "parameters": "[]"}),
        ("SwarmUI", {"parameters": '{"sui_image_params": 3}'}),
    ],
)
def test_a_program_that_is_known_by_name_only_is_named(tmp_path: Path, program: str, texts: dict[str, str]) -> None:
    with pytest.raises(PictureFileError, match=rf"p\.png was made by {program}, which keeps"):
        read_picture_text(png_of(tmp_path / "p.png", texts))


@pytest.mark.parametrize(
    "comment", ["Screenshot", "SAMSUNG", "OLYMPUS DIGITAL CAMERA", "a red shoe", "Steps taken: 3", "{}"]
)
def test_a_screenshot_and_a_cameras_comment_are_no_prompts(tmp_path: Path, comment: str) -> None:
    for path in (
        with_comment(tmp_path / "p.jpg", b"ASCII\0\0\0" + comment.encode()),
        with_comment(tmp_path / "p.webp", b"UNICODE\0" + comment.encode("utf-16-be")),
        png_with(tmp_path / "p.png", parameters=comment, Comment=comment, Description=comment),
    ):
        with pytest.raises(PictureFileError, match=r"its text is no program's settings.*ComfyUI"):
            read_picture_text(path)


def test_fooocus_in_a1111s_scheme_is_a1111s_text(tmp_path: Path) -> None:
    read = read_picture_text(png_of(tmp_path / "p.png", {"parameters": A1111_TEXT, "fooocus_scheme": "a1111"}))
    assert (read.source, read.settings.seed) == ("A1111", 965400086)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_our_record_is_read_from_every_format(tmp_path: Path, ending: str) -> None:
    record = make_record(FULL)
    texts = {PARAMETERS_KEY: "a\nSteps: 2", RECORD_KEY: record.model_dump_json()}
    picture_format = "jpeg" if ending == "jpg" else ending
    (tmp_path / f"p.{ending}").write_bytes(encode_picture(PICTURE, texts, picture_format=picture_format))  # type: ignore[arg-type]
    assert read_picture_text(tmp_path / f"p.{ending}").record == record


def test_another_ones_maker_note_is_not_our_record(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + A1111_TEXT.encode()
    exif.get_ifd(0x8769)[0x927C] = b'{"fooocus": 1}'
    Image.fromarray(PICTURE).save(tmp_path / "p.jpg", exif=exif)
    assert read_picture_text(tmp_path / "p.jpg").skipped == ()


def with_chunk_after_pixels(path: Path, extra: bytes) -> Path:
    content = np.asarray(PICTURE)
    Image.fromarray(content).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-12] + extra + whole[-12:])
    return path


TEXT = A1111_TEXT.encode()
EXIF_HEAD = b"MM\0*\0\0\0\x08"


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"tEXt", b"parameters\0" + TEXT),
        chunk(b"iTXt", b"parameters\0\0\0\0\0" + TEXT),
        chunk(b"tIME", bytes(7)) + chunk(b"tEXt", b"Software\0x") + chunk(b"tEXt", b"parameters\0" + TEXT),
    ],
)
def test_text_after_the_pixels_is_read(tmp_path: Path, extra: bytes) -> None:
    read = read_picture_text(with_chunk_after_pixels(tmp_path / "p.png", extra))
    assert (read.settings.seed, read.skipped) == (965400086, ())


def test_exif_after_the_pixels_is_read(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + TEXT
    content = exif.tobytes().removeprefix(b"Exif\0\0")
    assert (
        read_picture_text(with_chunk_after_pixels(tmp_path / "p.png", chunk(b"eXIf", content))).settings.seed
        == 965400086
    )


def test_text_after_the_end_is_not_read(tmp_path: Path) -> None:
    path = with_chunk_after_pixels(tmp_path / "p.png", b"")
    path.write_bytes(path.read_bytes() + chunk(b"tEXt", b"parameters\0" + TEXT))
    with pytest.raises(PictureFileError, match="no settings"):
        read_picture_text(path)


def test_text_without_measure_after_the_pixels_is_refused(tmp_path: Path) -> None:
    bomb = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"a" * 1_000_000)) * 70
    with pytest.raises(PictureFileError, match="Too much memory"):
        read_picture_text(with_chunk_after_pixels(tmp_path / "p.png", bomb))


SHOE = "très chic 靴 Ã\nSteps: 20, Seed: 7, RNG: CPU"


@pytest.mark.parametrize("after", [b"", b"\0\0\0"])
@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf"])
def test_raw_utf8_in_a_chunk_that_should_be_latin1_is_read(tmp_path: Path, before: bytes, after: bytes) -> None:
    extra = chunk(b"tEXt", b"parameters\0" + before + SHOE.encode() + after)
    assert read_picture_text(with_chunk_after_pixels(tmp_path / "p.png", extra)).settings.prompt == "très chic 靴 Ã"


def test_latin1_is_read_as_that(tmp_path: Path) -> None:
    extra = chunk(b"tEXt", b"parameters\0" + "très chic\nSteps: 20".encode("latin-1"))
    assert read_picture_text(with_chunk_after_pixels(tmp_path / "p.png", extra)).settings.prompt == "très chic"


@pytest.mark.parametrize("padding", [b"", b"\0", b"\0\0", b"\0\0\0"])
@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16-be", "utf-16-le", "utf-16"])
def test_a_comment_marked_unicode_is_read_in_every_encoding(codec: str, padding: bytes) -> None:
    assert decode_comment(b"UNICODE\0" + SHOE.encode(codec) + padding) == SHOE


@pytest.mark.parametrize("start", [b"", b"ASCII\0\0\0", bytes(8), b"ASCII\0\0\0\xef\xbb\xbf"])
def test_another_comment_is_utf8_or_latin1(start: bytes) -> None:
    assert decode_comment(start + SHOE.encode() + bytes(5)) == SHOE
    assert decode_comment(start.removesuffix(b"\xef\xbb\xbf") + "très chic".encode("latin-1")) == "très chic"


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_a_text_of_ours_is_read_back_from_png_jpeg_and_webp(text: str) -> None:
    whole = f"{text}\nSteps: 1"
    assert decode_comment(b"UNICODE\0" + whole.encode("utf-16-be")) == whole.replace("\0", "").removeprefix("\ufeff")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(["3", 0]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["prompt", "inputs", "class_type", "text", "positive", "steps", "seed", "width", "size", "c", "uc"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
_FOREIGN_KEYS = ["parameters", "prompt", "workflow", "Comment", "invokeai_metadata", "fooocus_scheme", COMMENT_KEY]


@given(st.dictionaries(st.sampled_from(_FOREIGN_KEYS), _JSON.map(json.dumps) | st.text(max_size=30), max_size=4))
def test_no_foreign_text_raises_anything_but_our_error(texts: dict[str, str]) -> None:
    for whole in (texts, {**texts, "Software": "NovelAI"}, {**texts, "XML:com.adobe.xmp": texts.get("prompt", "")}):
        try:
            read = read_program(whole, "p.png")
        except PictureFileError as error:
            assert str(error).startswith("p.png was made by ")
        else:
            assert read is None or GenerationSettings.model_validate(read.settings.model_dump()) == read.settings


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "{" * 900_000, '{"seed": ' + "9" * 9000 + "}"])
def test_json_that_means_harm_is_no_settings(text: str) -> None:
    assert read_program({"parameters": text, "prompt": text, COMMENT_KEY: text}, "p.png") is None


@pytest.mark.parametrize(
    ("key", "value"), [("seed", "x" * 5000), ("seed", -1), ("seed", True), ("steps", [1]), ("cfg", "nan")]
)
def test_a_value_that_breaks_its_rule_is_left_out(key: str, value: object) -> None:
    read = read_program({"prompt": json.dumps(graph(**{key: value}))}, "p.png")
    assert read is not None
    default = GenerationSettings(prompt="")
    assert (read.settings.width, read.settings.height) == (512, 768)
    if key == "seed":
        assert read.settings.seed == default.seed
