"""Publishing to a Hub on the loopback, through the real client: one commit or none, whatever happens in between."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard, constants
from typer.testing import CliRunner

from hf_mmspec import AutoDrafter
from hf_mmspec.cli import app
from hf_mmspec.hub import PublishError, plan_publication, publish
from hf_mmspec.modeling import DrafterLoadError
from tests.hub.stub_hub import TOKEN
from tests.modeling import tiny

REPO = "org/vispec-tiny.1"
# so wide that its weights are several chunks of a connection
WIDE = {"vocab_size": 9000, "draft_vocab_size": 9000, "hidden_size": 64}


@pytest.fixture
def folder(tmp_path):
    return saved(tmp_path / "drafter")


def saved(folder, shard="5GB", **overrides):
    tiny.drafter(**overrides).save_pretrained(folder, max_shard_size=shard)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A drafter\n")
    return folder


def send(folder, **options):
    return publish(plan_publication(folder), REPO, **{"token": TOKEN, **options})


def uploads(hub):
    return [path for method, path, _ in hub.requests if method == "PUT"]


@pytest.fixture
def no_waiting(monkeypatch):
    """The client waits before it tries again."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)


def test_everything_comes_in_one_commit_as_it_was_planned(hub, folder):
    url = send(folder)
    repository = hub.repositories[REPO]
    assert len(repository.history) == 2 and url.endswith(repository.history[-1])  # the first made the repository
    planned = {
        file.path: file.content if isinstance(file.content, bytes) else file.content.read_bytes()
        for file in plan_publication(folder).files
    }
    assert {path: hub.file(REPO, path) for path in repository.files() if path != ".gitattributes"} == planned
    assert not repository.private


def test_what_is_published_loads_and_is_the_same(hub, folder):
    send(folder)
    ours, theirs = AutoDrafter.from_pretrained(folder), AutoDrafter.from_pretrained(REPO)
    assert type(ours) is type(theirs)
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[name])


def test_a_second_time_changes_and_sends_nothing(hub, folder):
    first = send(folder)
    hub.requests.clear()
    assert send(folder) == first
    assert len(hub.repositories[REPO].history) == 2 and not uploads(hub)


def test_what_is_stale_goes_in_the_same_commit_and_the_rest_stays(hub, folder, tmp_path):
    other = saved(tmp_path / "sharded", shard="20KB")
    send(other)
    hub.add(REPO, {"NOTICE": b"kept", "old_module.py": b"", "custom_generate/old.py": b"", "tools/own.py": b"kept"})
    before = len(hub.repositories[REPO].history)
    send(folder)
    repository = hub.repositories[REPO]
    assert len(repository.history) == before + 1
    assert repository.files().keys() == plan_publication(folder).paths | {".gitattributes", "NOTICE", "tools/own.py"}


def test_a_broken_connection_changes_nothing_and_the_next_attempt_goes_on(hub, tmp_path, no_waiting):
    folder = saved(tmp_path / "wide", shard="1MB", **WIDE)
    sizes = {file.name: file.stat().st_size for file in folder.glob("*.safetensors")}
    large = [name for name, size in sizes.items() if size > 2**20]
    assert len(large) == 1 and len(sizes) > 1
    hub.break_after = 2**20
    with pytest.raises(PublishError, match="not published, and nothing there has changed; try again"):
        send(folder)
    assert len(hub.repositories[REPO].history) == 1
    sent = set(hub.sent)
    hub.break_after = None
    hub.requests.clear()
    send(folder)
    assert len(hub.repositories[REPO].history) == 2 and len(hub.sent) == len(sizes)
    assert len(uploads(hub)) == len(sizes) - len(sent)
    AutoDrafter.from_pretrained(REPO)


def test_a_download_that_breaks_is_resumed(hub, tmp_path, no_waiting, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 2**18)  # what arrived is kept by whole chunks
    send(saved(tmp_path / "wide", **WIDE))
    hub.break_after = 2**20  # each connection brings one more piece
    AutoDrafter.from_pretrained(REPO)
    assert len([path for method, path, _ in hub.requests if method == "GET" and path.startswith("/large")]) > 2


def test_without_a_token_that_may_write_nothing_is_made(hub, folder):
    for token in (None, "hf_stranger"):
        with pytest.raises(PublishError, match=r"the Hub refuses .*log in with `hf auth login`"):
            send(folder, token=token)
    assert hub.repositories == {}


def test_a_private_repository_needs_a_token_which_reaches_every_fetch(hub, folder, tmp_path):
    send(folder, private=True)
    assert hub.repositories[REPO].private
    with pytest.raises(DrafterLoadError, match="private repository, make sure to pass a token"):
        AutoDrafter.from_pretrained(REPO)
    hub.requests.clear()
    sha = hub.repositories[REPO].history[-1]
    hub.add(REPO, {"config.json": b"{}"})  # main goes on
    AutoDrafter.from_pretrained(REPO, token=TOKEN, revision=sha, cache_dir=tmp_path / "own cache")
    at_hub = [(path, token) for _, path, token in hub.requests if not path.startswith("/large")]
    assert len(at_hub) >= 3 and {token for _, token in at_hub} == {TOKEN}
    assert all(sha in path for path, _ in at_hub if "/resolve/" in path)
    assert not os.path.exists(constants.HF_HUB_CACHE) or not os.listdir(constants.HF_HUB_CACHE)


def test_a_public_repository_is_not_taken_for_a_private_one(hub, folder):
    send(folder)
    with pytest.raises(PublishError, match="exists and is public"):
        send(folder, private=True)


def test_a_branch_is_made_and_a_revision_pins(hub, folder, tmp_path):
    send(folder)
    pinned = hub.repositories[REPO].branches["main"]
    saved(folder, num_q=5)
    send(folder, revision="wider")
    send(folder, revision="wider")  # the branch is there now
    assert hub.repositories[REPO].branches["main"] == pinned
    assert AutoDrafter.from_pretrained(REPO).config.num_q == 2
    assert AutoDrafter.from_pretrained(REPO, revision="wider").config.num_q == 5
    send(folder)
    assert AutoDrafter.from_pretrained(REPO).config.num_q == 5
    assert AutoDrafter.from_pretrained(REPO, revision=pinned).config.num_q == 2


def test_offline_it_loads_from_the_cache(hub, folder, monkeypatch):
    send(folder)
    AutoDrafter.from_pretrained(REPO)
    hub.requests.clear()
    AutoDrafter.from_pretrained(REPO, local_files_only=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    AutoDrafter.from_pretrained(REPO)
    assert hub.requests == []
    with pytest.raises(DrafterLoadError, match="org/never"):
        AutoDrafter.from_pretrained("org/never")
    with pytest.raises(PublishError, match="offline"):
        send(folder)


# ---- drafter.push_to_hub -------------------------------------------------------------------------------------------


def test_push_to_hub_sends_all_that_publish_sends_and_a_short_card(hub, folder):
    tiny.drafter().push_to_hub(REPO, token=TOKEN, private=True, tags=["tiny"])
    assert hub.repositories[REPO].files().keys() == plan_publication(folder).paths | {".gitattributes"}
    card = ModelCard(hub.file(REPO, "README.md").decode())
    assert {"speculative-decoding", "draft-model", "vispec", "tiny"} <= set(card.data.tags)
    assert f'custom_generate="{REPO}"' in card.text
    tiny.drafter().push_to_hub(REPO, token=TOKEN)
    assert len(hub.repositories[REPO].history) == 2


def test_push_to_hub_keeps_the_card_that_is_there(hub, folder):
    send(folder)
    tiny.drafter(num_q=5).push_to_hub(REPO, token=TOKEN, max_shard_size="20KB")
    assert hub.file(REPO, "README.md") == (folder / "README.md").read_bytes()
    assert AutoDrafter.from_pretrained(REPO).config.num_q == 5


def test_saving_can_push(hub, tmp_path):
    tiny.drafter().save_pretrained(tmp_path / "mine", push_to_hub=True, repo_id=REPO, token=TOKEN)
    assert (tmp_path / "mine" / "config.json").is_file()
    assert "custom_generate/generate.py" in hub.repositories[REPO].files()


# ---- the command ---------------------------------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(app, ["publish", *map(str, arguments)], env={"COLUMNS": "100"})


def test_the_command_shows_all_files_with_sizes_and_sends_them(hub, folder):
    (folder / "optimizer.pt").write_bytes(b"x")
    result = run(folder, "--repo-id", REPO, "--token", TOKEN)
    assert result.exit_code == 0, result.output
    for path in plan_publication(folder).paths:
        assert path in result.output
    assert "kB" in result.output and "in all" in result.output
    assert "stays here: optimizer.pt (a pickle" in result.output
    assert f"published: {hub.url}/{REPO}/commit/{hub.repositories[REPO].history[-1]}" in result.output


def test_a_dry_run_shows_and_asks_nobody(hub, folder):
    result = run(folder, "--repo-id", REPO, "--dry-run")
    assert result.exit_code == 0 and "custom_generate/generate.py" in result.output
    assert hub.requests == []


def test_the_command_takes_a_branch_and_private(hub, folder):
    assert run(folder, "--repo-id", REPO, "--token", TOKEN, "--private", "--revision", "next").exit_code == 0
    assert hub.repositories[REPO].private and "config.json" in hub.repositories[REPO].files("next")
    assert "config.json" not in hub.repositories[REPO].files("main")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--repo-id", REPO], "nowhere is no folder"),
        (["FOLDER", "--repo-id", "a/b/c"], "--repo-id a/b/c"),
        (["FOLDER", "--repo-id", REPO, "--token", "hf_stranger"], "the Hub refuses (401)"),
    ],
)
def test_what_cannot_be_is_one_line(hub, folder, arguments, message):
    result = run(*(folder if argument == "FOLDER" else argument for argument in arguments))
    assert result.exit_code == 2 and result.stderr.count("\n") == 1 and message in result.stderr


# ---- memory --------------------------------------------------------------------------------------------------------

ROUND_TRIP = """
import sys
from pathlib import Path
from huggingface_hub import hf_hub_download
from hf_mmspec.hub import plan_publication, publish
def peak():  # of this program: getrusage begins with that of the process which started it
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024
publication = plan_publication(sys.argv[1])
before = peak()
publish(publication, sys.argv[2], token=sys.argv[3])
hf_hub_download(sys.argv[2], "model.safetensors")
print(peak() - before, peak())
"""


def sparse_drafter(folder, rows):
    """A whole drafter's folder whose large head takes no room on disk."""
    saved(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"vocab_size": rows, "draft_vocab_size": rows}
    (folder / "config.json").write_text(json.dumps(config))
    from hf_mmspec.hub.plan import expected_tensors
    from hf_mmspec.modeling import ViSpecConfig

    names = {torch.float32: "F32", torch.int64: "I64"}
    header, end = {}, 0
    for name, tensor in expected_tensors(ViSpecConfig.from_pretrained(folder)).items():
        offsets = [end, end := end + tensor.nbytes]
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
    encoded = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        file.truncate(8 + len(encoded) + end)
    return end


@pytest.mark.parametrize(
    ("rows", "growth"),
    [pytest.param(2**21, 100, id="300 MB"), pytest.param(2**25, 300, id="4 GB", marks=pytest.mark.slow)],
)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel does not tell peak memory")
def test_large_weights_go_up_and_down_in_little_memory(hub, tmp_path, rows, growth):
    nbytes = sparse_drafter(tmp_path / "large", rows)
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }
    command = [sys.executable, "-c", ROUND_TRIP, str(tmp_path / "large"), REPO, TOKEN]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    grown, most = map(int, done.stdout.split())  # MiB
    assert nbytes > 2.5 * growth * 2**20 and grown < growth and most < 1024
    assert hub.repositories[REPO].files()["model.safetensors"].size > nbytes
