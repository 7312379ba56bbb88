"""Saving and loading: bit-equal, strict, and clear about what is wrong with a folder."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, GenerationConfig

from hf_mmspec.auto import AutoDrafter
from hf_mmspec.modeling import DraftBudget, DrafterLoadError, ViSpecConfig, ViSpecDrafter
from hf_mmspec.modeling.modeling_drafter import Drafter
from tests.generation import tiny as targets
from tests.modeling import tiny

IDS = torch.arange(3, 119, 5)


def never_saved():
    drafter = tiny.drafter(acceptance_by_depth=[0.8, 0.7], acceptance_by_rank=[[0.8, 0.1]], draft_vocab_size=len(IDS))
    drafter.set_draft_vocabulary(IDS, tiny.borrowed().lm_head)
    drafter.generation_config = GenerationConfig(draft_depth=4, draft_mode="chain")
    return drafter


@pytest.fixture
def folder(tmp_path):
    never_saved().save_pretrained(tmp_path / "drafter")
    return tmp_path / "drafter"


def proposal(drafter):
    state = drafter.prefill(tiny.prompt([(4, 14)]), torch.tensor([[17]]), tiny.borrowed())
    tree = drafter.propose(state, DraftBudget(3, 3, 12))
    return tree.tokens.tolist(), tree.scores.tolist()


FRESH_PROCESS = """
import sys, json, torch
from hf_mmspec.auto import AutoDrafter
from tests.modeling.test_loading import proposal
drafter = AutoDrafter.from_pretrained(sys.argv[1])
buffers = {name: buffer.tolist() for name, buffer in drafter.named_buffers()}
print(json.dumps([proposal(drafter), buffers]))
"""


def test_bit_equal_with_buffers(folder):
    drafter = AutoDrafter.from_pretrained(folder)
    check_buffers({name: buffer.tolist() for name, buffer in drafter.named_buffers()})
    assert proposal(drafter) == proposal(never_saved())


def check_buffers(buffers):
    built = tiny.drafter(draft_vocab_size=len(IDS))  # never saved: its rotary tables are the truth
    assert buffers["rotary_emb.inv_freq"] == built.rotary_emb.inv_freq.tolist()
    assert set(buffers) == {"d2t", "rotary_emb.inv_freq", "rotary_emb.original_inv_freq"}


@pytest.mark.slow
def test_bit_equal_in_a_fresh_process_with_buffers(folder):
    run = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS, str(folder)], capture_output=True, text=True, check=True
    )
    drafted, buffers = json.loads(run.stdout.splitlines()[-1])
    assert drafted == json.loads(json.dumps(proposal(never_saved())))
    check_buffers(buffers)


def test_everything_comes_back(folder):
    drafter = AutoDrafter.from_pretrained(folder)
    assert isinstance(drafter, ViSpecDrafter)
    assert (drafter.generation_config.draft_depth, drafter.generation_config.draft_mode) == (4, "chain")
    assert drafter.config.acceptance_by_depth == [0.8, 0.7]
    assert drafter.config.acceptance_by_rank == [[0.8, 0.1]]
    assert not drafter.training
    assert isinstance(AutoConfig.from_pretrained(folder), ViSpecConfig)
    assert isinstance(AutoModel.from_pretrained(folder), ViSpecDrafter)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtypes(folder, dtype):
    drafter = AutoDrafter.from_pretrained(folder, dtype=dtype)
    assert drafter.dtype == dtype
    assert drafter.d2t.dtype == torch.long
    assert torch.isfinite(drafter.rotary_emb.inv_freq).all()
    proposal(drafter)


def test_auto_map_names_the_files(folder):
    assert json.loads((folder / "config.json").read_text())["auto_map"] == {
        "AutoConfig": "configuration_vispec.ViSpecConfig",
        "AutoModel": "modeling_vispec.ViSpecDrafter",
    }


def test_image_queries_start_as_published():
    torch.manual_seed(0)
    drafter = ViSpecDrafter(tiny.config(hidden_size=256, num_q=8))
    assert drafter.image_adaptor.queries.std().item() == pytest.approx(drafter.config.head_dim**-0.5, rel=0.1)
    assert torch.equal(drafter.img_fc.weight, torch.eye(256, 512))
    assert not drafter.img_fc.bias.any()


# ---- broken folders ------------------------------------------------------------------------------------------------


def change_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder, **fields):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))


BREAKAGES = {
    "missing: fc.weight": lambda f: change_weights(f, lambda t: t.pop("fc.weight")),
    "missing: d2t": lambda f: change_weights(f, lambda t: t.pop("d2t")),
    "unexpected: extra.weight": lambda f: change_weights(f, lambda t: t.update({"extra.weight": torch.ones(2)})),
    "shape": lambda f: change_weights(f, lambda t: t.update({"fc.weight": torch.ones(32, 63)})),
    "model.safetensors.*cut short": lambda f: (f / "model.safetensors").write_bytes(
        (f / "model.safetensors").read_bytes()[:5000]
    ),
    "model.safetensors.*corrupt": lambda f: (f / "model.safetensors").write_bytes(b""),
    "model.safetensors": lambda f: (f / "model.safetensors").unlink(),
    "config.json": lambda f: (f / "config.json").unlink(),
    "config.json.*JSON": lambda f: (f / "config.json").write_text('{"model_type": "vis'),
    'model_type "llama"': lambda f: change_config(f, model_type="llama"),
    "config.json.*hidden_size": lambda f: change_config(f, hidden_size="wide"),
    "generation_config.json is corrupt": lambda f: (f / "generation_config.json").write_text("{"),
}


@pytest.mark.parametrize("complaint", BREAKAGES)
def test_broken_folders_name_file_and_fix(folder, complaint):
    BREAKAGES[complaint](folder)
    with pytest.raises(OSError, match=complaint) as caught:
        AutoDrafter.from_pretrained(folder)
    assert isinstance(caught.value, DrafterLoadError) or "model.safetensors" in str(caught.value)


def test_unknown_config_fields_are_named(folder):
    change_config(folder, num_queues=3, another=1)
    with pytest.raises(ValueError, match="another, num_queues"):
        AutoDrafter.from_pretrained(folder)


def test_no_such_folder(tmp_path):
    with pytest.raises(OSError, match=r"config\.json"):
        AutoDrafter.from_pretrained(tmp_path / "nowhere")


# ---- options that must reach every fetch ---------------------------------------------------------------------------


def test_hub_options_reach_every_fetch(folder, monkeypatch):
    from transformers import configuration_utils, modeling_utils
    from transformers.generation import configuration_utils as generation_utils

    from hf_mmspec.modeling import strict_loading

    given = {"token": "t", "revision": "main", "cache_dir": "c", "local_files_only": True}
    seen = []

    def fetch(path, name, *args, **kwargs):
        seen.append((name, {key: kwargs.get(key) for key in given}))
        return str(folder / name) if (folder / name).exists() else None

    for module in (configuration_utils, modeling_utils, generation_utils, strict_loading):
        monkeypatch.setattr(module, "cached_file", fetch)
    AutoDrafter.from_pretrained("somebody/drafter", **given)
    assert {"config.json", "generation_config.json", "model.safetensors"} <= {name for name, _ in seen}
    for name, options in seen:
        assert options["token"] == "t", name
        assert options["cache_dir"] == "c", name
        assert options["local_files_only"] is True, name


# ---- reduced vocabulary --------------------------------------------------------------------------------------------


def test_draft_ids_are_offsets(folder):
    drafter = AutoDrafter.from_pretrained(folder)
    assert torch.equal(drafter.to_target_ids(torch.arange(len(IDS))), IDS)
    assert torch.equal(drafter.d2t, IDS - torch.arange(len(IDS)))
    tokens, _ = proposal(drafter)
    assert set(tokens[1:]) <= set(IDS.tolist())


def test_zeros_are_the_identity():
    drafter = tiny.drafter(draft_vocab_size=50)
    assert torch.equal(drafter.to_target_ids(torch.arange(50)), torch.arange(50))
    full = tiny.drafter()
    assert torch.equal(full.to_target_ids(torch.arange(50)), torch.arange(50))


@pytest.mark.parametrize(
    "d2t", [torch.full((len(IDS),), 118), torch.full((len(IDS),), -1), IDS, -torch.arange(len(IDS))], ids=str
)
def test_bad_maps_are_refused(folder, d2t):
    """Out of range, negative, ids instead of offsets, two draft ids for one token."""
    change_weights(folder, lambda tensors: tensors.update({"d2t": d2t.contiguous()}))
    with pytest.raises(ValueError, match="bad draft vocabulary"):
        AutoDrafter.from_pretrained(folder)


def test_reduced_head_starts_as_the_target_s_rows():
    target = targets.llava()
    drafter = ViSpecDrafter.from_target(target, draft_token_ids=IDS.flip(0))
    assert torch.equal(drafter.lm_head.weight, target.lm_head.weight[IDS])
    first_ids = ViSpecDrafter.from_target(target, draft_vocab_size=10)
    assert torch.equal(first_ids.lm_head.weight, target.lm_head.weight[:10])
    with pytest.raises(ValueError, match="same target token"):
        ViSpecDrafter.from_target(target, draft_token_ids=torch.tensor([4, 4]))


def test_reduced_sampling_spreads_over_the_target_s_vocabulary(folder):
    drafter = AutoDrafter.from_pretrained(folder)
    state = drafter.prefill(tiny.prompt(), torch.tensor([[17]]), tiny.borrowed())
    probs = drafter.propose(state, DraftBudget(2, 1, 3, "chain"), temperature=1.0).proposal_probs
    assert probs.shape == (3, tiny.VOCAB)
    elsewhere = torch.ones(tiny.VOCAB, dtype=torch.bool).scatter(0, IDS, False)
    assert not probs[1:, elsewhere].any()
    torch.testing.assert_close(probs[1:].sum(-1), torch.ones(2))


def test_base_class_says_what_is_missing():
    base = Drafter(tiny.config())
    assert base.feature_layers is None
    with pytest.raises(NotImplementedError):
        base.propose(None, DraftBudget(1, 1, 2))
