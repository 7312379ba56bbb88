"""The commands from outside: what they print, write and exit with."""

import re
import sys

import pytest
from PIL import Image

from hf_mmspec.console import compare, show
from hf_mmspec.demo.model import base_model
from hf_mmspec.evaluation import contenders, loading


def test_demo_shows_three_tasks_by_path_and_checks_the_answers(run, loaded, tmp_path):
    result = run("demo", "--max-new-tokens", 12)
    assert result.exit_code == 0, result.output
    for task in ("scene", "chart", "dialog"):
        assert f"outputs/{task}.png" in result.output
        assert Image.open(tmp_path / "outputs" / f"{task}.png").size == (192, 192)
    assert result.output.count("identical: yes") == 3
    assert len(re.findall(r"12 tokens, [\d.]+ tokens/s", result.output)) == 6
    assert len(re.findall(r"L \d\.\d\d tokens per target forward", result.output)) == 3
    assert Image.open(tmp_path / "outputs" / "demo.png").width > 1000


def test_generate_answers_about_the_users_file(run, loaded, tmp_path):
    Image.new("RGB", (40, 30), "blue").save(tmp_path / "mine.jpg")
    result = run("generate", "--image", "mine.jpg", "--prompt", "What is $this$ [bold]?", "--max-new-tokens", 8)
    assert result.exit_code == 0, result.output
    assert "identical: yes" in result.output
    assert (tmp_path / "outputs" / "generate.png").exists()
    assert loaded == [None, "the default drafter"]


@pytest.mark.parametrize("names", [(), ("a.png", "b.jpg"), ("a.png", "b.jpg", "a.png")])
def test_generate_takes_several_images_and_none(run, loaded, tmp_path, names, monkeypatch):
    asked = []
    stock = show.compare
    monkeypatch.setattr(
        show, "compare", lambda *args, **options: asked.append((args[3], options)) or stock(*args, **options)
    )
    for index, name in enumerate(sorted(set(names))):
        Image.new("RGB", (40, 30 + index), "blue").save(tmp_path / name)
    options = [part for name in names for part in ("--image", name)]
    result = run("generate", *options, "--prompt", "What?", "--max-new-tokens", 6)
    assert result.exit_code == 0, result.output
    assert "identical: yes" in result.output
    inputs, options = asked[0]
    assert (inputs["input_ids"] == 3).sum() == 144 * len(names)
    assert [image.height for image in options["images"]] == [30 + (name == "b.jpg") for name in names]
    assert options["title"] == (", ".join(names) or "text")


@pytest.mark.parametrize("images", [0, 1])
def test_a_prompt_with_the_models_word_for_an_image_is_one_line(run, loaded, tmp_path, images, monkeypatch):
    monkeypatch.setattr(show, "warm_up", lambda *_: pytest.fail("something was decoded"))
    Image.new("RGB", (40, 30)).save(tmp_path / "mine.png")
    result = run("generate", *["--image", "mine.png"] * images, "--prompt", "What is <image>?")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert "the text contains '<image>'" in result.stderr


def test_one_bad_image_of_several_is_named_before_anything_is_loaded(run, loaded, tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "good.png")
    result = run("generate", "--image", "good.png", "--image", "nowhere.png", "--prompt", "x")
    assert result.exit_code == 2 and not loaded
    assert result.stderr == "error: nowhere.png: no such file\n"


def test_generate_takes_the_users_model_and_drafter(run, loaded, tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "mine.png")
    options = ["--model", "my/model", "--drafter", "my/drafter", "--max-new-tokens", 4]
    assert run("generate", "--image", "mine.png", "--prompt", "x", *options).exit_code == 0
    assert loaded == ["my/model", "my/drafter"]


def test_sampled_answers_are_not_called_identical(run, loaded, tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "mine.png")
    result = run("generate", "--image", "mine.png", "--prompt", "x", "--temperature", 1, "--max-new-tokens", 6)
    assert result.exit_code == 0 and "identical" not in result.output and "drawn: " in result.output


def test_a_different_answer_is_said_to_be_different(run, loaded, tmp_path, monkeypatch):
    """The exit code and the words tell; nothing is glossed over."""
    Image.new("RGB", (40, 30)).save(tmp_path / "mine.png")

    def with_a_wrong_token(*arguments):
        found = contenders.answer(*arguments)
        if found.speculation is not None:
            found.tokens[3] = 4 if found.tokens[3] != 4 else 5
        return found

    monkeypatch.setattr(compare, "answer", with_a_wrong_token)
    result = run("generate", "--image", "mine.png", "--prompt", "x", "--max-new-tokens", 6)
    assert result.exit_code == 1 and "identical: NO" in result.output and "first at token 4" in result.output


@pytest.mark.parametrize("content", [None, b"", b"hello", b"\x89PNG\r\n\x1a\n broken"])
def test_a_bad_image_is_one_line_before_anything_is_loaded(run, loaded, tmp_path, content):
    if content is not None:
        (tmp_path / "bad.png").write_bytes(content)
    result = run("generate", "--image", "bad.png", "--prompt", "x")
    assert result.exit_code == 2 and not loaded
    assert result.stderr.startswith("error: bad.png: ") and result.stderr.count("\n") == 1
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo", "--dtype", "int4"], "choose one of"),
        (["generate", "--image", "x", "--prompt", "x", "--model", "m"], "give --drafter"),
        (["bench", "--model", "m"], "give --drafter"),
        (["bench", "--dtype", "int4"], "choose one of"),
        (["bench", "--data", "./nowhere"], "nowhere"),
        (["bench", "--data", "embedded:poems"], "choose one of"),
        (["bench", "--budget", "breadth=2"], "name=value"),
        (["bench", "--budget", "top_k=0"], "at least 1"),
        (["bench", "--budget", "mode=chains"], "must be"),
        (["bench", "--prompt-column", "question"], "is generated"),
        (["distil", "--out", "answers", "--pictures", "photos"], "is generated"),
        (["generate", "--prompt", "x", "--output", "x.bmp"], "ends in .png"),
        (["rewrite", "a cat", "--draw", "x"], "ends in .png"),
        (["rewrite", "a cat", "--max-new-tokens", "200"], "give at least"),
        (["chat", "--quantize", "int3"], "choose one of"),
        (["rewrite", "a cat", "--quantize", "int3"], "choose one of"),
    ],
)
def test_bad_options_are_one_line(run, loaded, arguments, words):
    result = run(*arguments)
    assert result.exit_code == 2 and words in result.stderr and not loaded
    assert result.stderr.count("\n") == 1


def test_without_any_drafter_the_way_out_is_said(run, monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "files", lambda package: tmp_path / package)
    result = run("demo")
    assert result.exit_code == 2 and "--drafter" in result.stderr


@pytest.mark.parametrize("content", ["{", "[]", "3"])
def test_a_folder_that_is_no_drafter_is_one_line(run, tmp_path, monkeypatch, content):
    monkeypatch.setattr(loading, "load_target", lambda *_: pytest.fail("the target was loaded"))
    (tmp_path / "config.json").write_text(content)
    result = run("demo", "--drafter", tmp_path)
    assert result.exit_code == 2 and "config.json" in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["./nowhere", "outputs/nowhere"])
def test_a_mistyped_drafter_is_noticed_before_the_target_is_loaded(run, monkeypatch, name):
    monkeypatch.setattr(loading, "load_target", lambda *_: pytest.fail("the target was loaded"))
    result = run("demo", "--drafter", name)
    assert result.exit_code == 2 and "nowhere" in result.stderr and result.stderr.count("\n") == 1


def test_a_missing_extra_is_one_line(run, monkeypatch):
    monkeypatch.delitem(sys.modules, "hf_mmspec.data.picture_file", raising=False)
    monkeypatch.setitem(sys.modules, "PIL", None)
    result = run("generate", "--image", "x.png", "--prompt", "x")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert "PIL is missing: run pip install 'hf-mmspec[demo]', in a checkout '.[demo]'" in result.stderr


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModuleNotFoundError("No module", name="timm.models"), "timm is missing: install the package"),
        (ImportError("It requires\nthe torchvision library"), "requires the torchvision library"),
    ],
)
def test_a_package_that_the_users_model_needs_is_one_line(run, loaded, monkeypatch, error, words):
    def fail(*_):
        raise error

    monkeypatch.setattr(loading, "load_target", fail)
    result = run("doctor")
    assert result.exit_code == 2 and words in result.stderr and result.stderr.count("\n") == 1


def test_a_missing_base_model_is_one_line(run, loaded, monkeypatch):
    monkeypatch.setattr(base_model, "PACKAGE", "a_package_that_is_not_there")
    monkeypatch.setattr(loading, "load_target", lambda *_: base_model.find_gguf())
    result = run("doctor")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert base_model.INSTALL in result.stderr


def test_a_bug_in_our_own_imports_keeps_its_traceback(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "hf_mmspec.data.picture_file", None)
    with pytest.raises(ModuleNotFoundError):
        run("generate", "--image", "x.png", "--prompt", "x")
    monkeypatch.setitem(sys.modules, "hf_mmspec.data.picture_file", sys)
    with pytest.raises(ImportError, match="open_picture"):
        run("generate", "--image", "x.png", "--prompt", "x")


def test_doctor_tells_what_decides_speed(run, loaded):
    result = run("doctor")
    assert result.exit_code == 0, result.output
    for word in ("torch", "transformers", "AMX", "AVX512-BF16", "AVX2", "fast dtype", "threads", "v(n)", "cached"):
        assert word in result.output
