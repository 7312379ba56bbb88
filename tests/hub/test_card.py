"""Cards are made of data alone: the committed ones are those that their JSON makes, and nobody's text does harm."""

import ast
import copy
import io
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from PIL import Image

from hf_mmspec.evaluation.bench import Settings
from hf_mmspec.evaluation.machine import machine_facts
from hf_mmspec.evaluation.report import make_report
from hf_mmspec.hub.card import fingerprint, make_card, write_card
from hf_mmspec.hub.card_bench import read_bench
from hf_mmspec.hub.card_facts import bench_files
from hf_mmspec.hub.names import is_hub_id, public_name
from hf_mmspec.hub.papers import PAPERS
from hf_mmspec.hub.publication import plan_publication
from hf_mmspec.modeling import FAMILIES
from hf_mmspec.whole_file import write_json
from tests.evaluation.test_strata import results
from tests.evaluation.tiny import tiny_drafter, tiny_target

COMMITTED = sorted((Path(__file__).parents[2] / "hub_cards").iterdir())
EVIL = "<script>alert(1)</script>|`x` ```\n---\n<img src=x onerror=y> [a](javascript:z) $\\frac$ \x1b[31m"


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_every_committed_card_is_what_its_files_make(folder):
    assert (folder / "README.md").read_text() == str(make_card(folder))
    for bench in folder.glob("bench*.json"):
        picture = folder / bench.name.replace("bench", "speed").replace(".json", ".png")
        assert picture.stat().st_size < 100_000
        assert Image.open(picture).info["Source"] == f"bench {fingerprint(read_bench(bench))}"


@pytest.mark.parametrize("field", ["acceptance_length", "decode_speedup", "end_to_end_speedup"])
def test_another_number_is_another_card(field):
    folder = next(each for each in COMMITTED if each.name.startswith("vispec"))
    report = read_bench(folder / "bench.json")
    next(row for row in report["rows"] if row["drafter"] == "vispec")[field] += 0.01
    assert str(make_card(folder, [report])) != (folder / "README.md").read_text()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cards") / "my-drafter"
    tiny_drafter(tiny_target()).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "my-drafter"))


@pytest.fixture(scope="module")
def report():
    made = make_report([results([range(61), range(73)], [64, 64], [2, 4])], Settings(), machine_facts())
    made["machine"]["command"] = "mmspec bench --model /home/me/models/big --data=/data/mine --json b.json"
    made["settings"] |= {"model": "org/big", "model_is_local": False, "samples": 2}
    made["settings"]["drafters"] = [{"name": "d", "source": "/home/me/my-drafter", "blind": False}]
    return json.loads(json.dumps(made))


@pytest.fixture
def bench(report, tmp_path):
    """Writes a changed report; returns its file."""

    def write(change=lambda report: None, name="b.json"):
        changed = copy.deepcopy(report)
        change(changed)
        write_json(tmp_path / name, changed)
        return tmp_path / name

    return write


def train(folder, **changes):
    training = {
        "target": "org/big",
        "data": [{"name": name, "source": "org/pictures", "answers": count} for name, count in (("a", 25), ("b", 15))],
        "records": 36,
        "outside": 0.0123,
        "recipe": {"stages": [{"name": "text", "epochs": 2, "loss": {"soft_cross_entropy": 1.0}}]},
        "results": {"acceptance_length": 2.5, "acceptance_length/see": 2.25},
        "held_out": {"prompts": 4, "budget": {"draft_depth": 6, "draft_top_k": 8, "draft_total_tokens": 30}},
        "provenance": {"command": "mmspec train"},
    }
    (folder / "training.json").write_text(json.dumps({**training, **changes}))


def test_numbers_of_the_bench_are_in_the_table_and_in_the_model_index(folder, bench, report):
    train(folder, license="apache-2.0")
    path = write_card(folder, [bench()])
    card, row = ModelCard.load(path), report["rows"][0]
    index = {(each.metric_type, each.dataset_config): each for each in card.data.eval_results}
    assert len(index) == 3
    for metric in ("acceptance_length", "decode_speedup", "end_to_end_speedup"):
        found = index[metric, "all, temperature 0"]
        assert found.metric_value == pytest.approx(row[metric], abs=1e-4)
        assert found.metric_args["machine"] == report["machine"]["cpu"]
    assert card.text.count("mmspec bench --model big --data=mine --json b.json") == 1
    assert "mmspec bench" not in card.content[: -len(card.text)]
    numbers = f"{row['acceptance_length']:.2f} | {row['decode_speedup']:.2f}x | {row['end_to_end_speedup']:.2f}x"
    assert f"| all | 0 | 2 | {numbers} | 2 of 2 |" in card.text
    assert report["definitions"]["acceptance_length"][:60] in card.text
    assert card.data.to_dict() | {"model-index": 0} == {
        "base_model": "org/big",
        "base_model_relation": "adapter",
        "datasets": ["org/pictures"],
        "library_name": "transformers",
        "license": "apache-2.0",
        "pipeline_tag": "image-text-to-text",
        "tags": ["speculative-decoding", "draft-model", "vispec", "hf_mmspec"],
        "model-index": 0,
    }


def test_the_card_can_be_made_anew_from_its_folder_alone(folder, bench):
    train(folder)
    text = write_card(folder, [bench()]).read_text()
    pictures = (folder / "speed.png").read_bytes()
    assert write_card(folder).read_text() == text == str(make_card(folder))
    assert (folder / "speed.png").read_bytes() == pictures and len(pictures) < 100_000
    assert Image.open(io.BytesIO(pictures)).width > 1000
    assert "/home/me" not in text + (folder / "bench.json").read_text()


def test_each_bench_has_a_table_and_a_picture(folder, bench):
    two = [bench(), bench(lambda r: r["machine"].update(cpu="Another"), "c.json")]
    text = write_card(folder, two).read_text()
    assert text.count("| task | temperature |") == 2 and "speed-2.png" in text and "Another" in text
    assert {"bench-2.json", "speed-2.png"} <= {path.name for path in folder.iterdir()}
    assert "Another" not in write_card(folder, two[:1]).read_text()
    assert not {"bench-2.json", "speed-2.png"} & {path.name for path in folder.iterdir()}


def test_two_benches_keep_their_order(folder, bench, tmp_path):
    """By number: as text, bench-2.json comes before bench.json."""
    two = [bench(), bench(lambda r: r["machine"].update(cpu="Another"), "c.json")]
    text = write_card(folder, two).read_text()
    assert text == str(make_card(folder)) == write_card(folder).read_text()
    (published,) = (each for each in plan_publication(folder, repo_id="org/name").files if each.path == "README.md")
    assert isinstance(published.content, bytes) and b"org/name" in published.content  # known for a made card
    names = ["bench.json", "bench-2.json", "bench-10.json"]
    for name in reversed(names):
        (tmp_path / name).write_text("{}")
    assert [file.name for file in bench_files(tmp_path)] == names


def test_measurements_stay_where_writing_fails(folder, bench, monkeypatch):
    write_card(folder, [bench(), bench(lambda r: r["machine"].update(cpu="Another"), "c.json")])
    before, third = {path.name: path.read_bytes() for path in folder.iterdir()}, bench(name="d.json")

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_card(folder, [third])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


EMBEDDED = {"target": "the embedded default", "data": [{"name": "a", "source": "embedded:chat", "answers": 1}]}


@pytest.mark.parametrize(
    "training, license",
    [
        ({}, None),  # of a target and data of others
        ({"license": "cc-by-4.0"}, "cc-by-4.0"),
        (EMBEDDED, "apache-2.0"),
        ({**EMBEDDED, "license": "mit"}, "mit"),
        ({**EMBEDDED, "data": [*EMBEDDED["data"], {"name": "b", "source": "org/pictures", "answers": 1}]}, None),
        ({**EMBEDDED, "data": [{"name": "b", "answers": 1}]}, None),
    ],
)
def test_no_license_is_claimed_for_what_others_made(folder, training, license):
    train(folder, **training)
    assert make_card(folder).data.license == license


def test_a_drafter_of_a_packed_target_is_shown_with_it(folder):
    train(folder, **EMBEDDED, target_quantization="bitsandbytes nf4", start="my-drafter")
    text = make_card(folder).text
    assert 'load_default(quantize="nf4")' in text and "those of an earlier drafter of this name" in text


def test_what_a_training_knows_is_told_and_that_no_speed_was_measured(folder):
    train(folder)
    card = make_card(folder, name="org/published")
    for words in (
        "**No speed was measured yet.**",
        "mmspec bench --drafter org/published --model org/big --data DATA --json outputs/bench.json",
        "mmspec card org/published --bench outputs/bench.json",
        "greedy, on 4 held-out prompts that chose the checkpoint; a tree of depth 6, 8 children, 30 nodes",
        "| see | 2.25 |",
        "36 answers of the target itself (4 more were held out), from org/pictures (40 answers). 1.23% of their",
        "| text |  | 2 |  |  |  | 1 soft\\_cross\\_entropy |",
        '"command": "mmspec train"',
        "@misc{kang2025vispec",
    ):
        assert words in card.text
    assert card.data.eval_results is None and "speed.png" not in card.text


def test_the_parameters_are_those_of_the_weights(folder):
    count = sum(each.numel() for each in tiny_drafter(tiny_target()).parameters())
    assert f"{count / 1e6:.1f} M parameters" in make_card(folder).text


@pytest.mark.parametrize("target", ["big", "the embedded default", None])
def test_a_local_target_is_no_base_model(folder, target):
    train(folder, target=target)
    metadata = make_card(folder).data.to_dict()
    assert "base_model" not in metadata and "base_model_relation" not in metadata


def test_a_folder_given_to_the_bench_is_no_base_model(folder, bench):
    file = bench(lambda r: r["settings"].update(model="models/big", model_is_local=True))
    assert "base_model" not in make_card(folder, [read_bench(file)]).data.to_dict()
    assert make_card(folder, [read_bench(bench())]).data.base_model == "org/big"


def test_public_names_keep_no_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("models/big").mkdir(parents=True)
    names = ["models/big", "/home/me/big", "./big", "~/big", "org/big", "big"]
    assert [public_name(name) for name in names] == ["big"] * 4 + ["org/big", "big"]
    assert [is_hub_id(name) for name in ("org/big", "big", "a/b/c", "org/<b>", None)] == [True] + [False] * 4


def test_a_bench_of_an_older_version_is_enough(folder):
    bare = {"machine": {}, "rows": [{"drafter": "vispec", "task": "t", "decode_speedup": 2.0}], "summary": {}}
    assert "| t | 0 |  |  | 2.00x |  | sampled |" in make_card(folder, [bare]).text


def test_a_drafter_is_found_among_several_by_its_folder(folder, bench):
    def another(name, source):
        def change(report):
            report["rows"].append({**report["rows"][0], "drafter": name})
            report["settings"]["drafters"].append({"name": name, "source": source, "blind": False})

        return change

    assert "| d |" in make_card(folder.rename(folder.with_name("e")), [read_bench(bench(another("x", "/a/e")))]).text
    with pytest.raises(ValueError, match="which drafter of the bench is e\\? It measured d, x"):
        make_card(folder.with_name("e"), [read_bench(bench(another("x", "/a/f")))])


def test_a_bad_bench_leaves_the_folder_as_it_was(folder, bench, tmp_path):
    write_card(folder, [bench()])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (tmp_path / "bad.json").write_text("[1]")
    with pytest.raises(ValueError, match="no report of `mmspec bench --json`"):
        write_card(folder, [bench(), tmp_path / "bad.json"])
    with pytest.raises(ValueError, match="which drafter"):
        write_card(folder, [bench(lambda r: r["rows"].clear())])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    "config", [None, "[]", "{", '{"model_type": "llava"}', '{"model_type": "vispec", "num_q": 0}']
)
def test_a_folder_of_something_else_is_refused(tmp_path, config):
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(ValueError, match=r"config\.json"):
        make_card(tmp_path)


def test_a_converted_drafter_names_its_source_and_claims_no_license(folder):
    (folder / "conversion.json").write_text(json.dumps({"source": "authors/weights", "commit": "abc123"}))
    card = make_card(folder)
    assert "Converted from authors/weights (abc123)" in card.text and card.data.license is None


class Tags(HTMLParser):
    """Names and attributes of the tags of a page."""

    def __init__(self, page):
        super().__init__()
        self.names, self.attributes = set(), {}
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes.setdefault(tag, []).append(dict(attrs))


def test_hostile_names_are_harmless(folder, bench):
    def poison(report):
        report["rows"][0]["task"] = report["machine"]["cpu"] = report["settings"]["data"][0] = EVIL
        report["machine"]["command"] = f"mmspec bench --model '{EVIL}'"
        report["summary"][EVIL] = report["summary"]["d"]
        report["definitions"]["decode_speedup"] = EVIL

    train(
        folder,
        target=EVIL,
        data=[{"name": EVIL, "source": EVIL, "answers": answers} for answers in (EVIL, 3, EVIL)],
        results={f"acceptance_length/{EVIL}": 2.0},
        recipe={"stages": [{"name": EVIL, "loss": {EVIL: 1}}]},
        provenance={"command": EVIL},
        method=EVIL,
    )
    (folder / "conversion.json").write_text(json.dumps({"source": EVIL, "commit": EVIL}))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "target_model_type": EVIL}))
    card = ModelCard.load(write_card(folder, [bench(poison)]))
    assert card.data.license is None and len(card.data.eval_results) == 3
    page = Tags(MarkdownIt("commonmark", {"html": True}).enable("table").render(card.text))
    blocks = {"h1", "h2", "p", "pre", "code", "ul", "li", "strong", "table", "thead", "tbody", "tr", "th", "td"}
    assert page.names <= {*blocks, "a", "img"}
    assert [each["src"] for each in page.attributes["img"]] == ["speed.png"]
    links = {"https://arxiv.org/abs/2509.15235", "https://huggingface.co/org/big"}
    assert {each["href"] for each in page.attributes["a"]} == links
    assert len(page.attributes["pre"]) == 4 and "\x1b" not in card.content


@pytest.mark.parametrize("target", [EVIL, '"; import os', "org/big", "the embedded default", None])
def test_the_lines_of_use_are_six_at_most_and_are_python(folder, target):
    train(folder, target=target)
    code = make_card(folder, name=EVIL if target == EVIL else None).text.split("python\n")[1].split("\n```")[0]
    assert len(code.splitlines()) <= 6
    calls = [type(statement).__name__ for statement in ast.parse(code).body]
    assert calls == ["Import", "ImportFrom", "Assign", "Assign", "Assign"]


def test_every_family_has_a_paper():
    assert PAPERS.keys() == FAMILIES.keys()
    entries = [paper.bibtex() for paper in PAPERS.values()]
    assert len({entry.partition(",")[0] for entry in entries}) == len(entries)
    assert all(
        entry.count("{") == entry.count("}") and paper.arxiv in entry
        for entry, paper in zip(entries, PAPERS.values(), strict=True)
    )
