"""The authors' own state dicts, as the golden cases recorded them from their classes, convert to what the golden tests
load through tables of their own."""

import pytest
import torch

from hf_mmspec import AutoDrafter
from hf_mmspec.hub import convert
from hf_mmspec.modeling import EagleConfig, EagleDrafter
from tests.golden import eagle, eagle2, eagle3, flash, vispec
from tests.golden.case import Case
from tests.golden.conftest import OWN_CASES
from tests.hub.published import save


def load_eagle1(case):
    drafter = EagleDrafter(EagleConfig(**eagle.shared_fields(case)))
    drafter.load_state_dict(case.weights("weights/", {}, {"embed_tokens.weight"}), strict=True)
    return drafter


# folder of cases -> prefix of the weights, our family, the golden tests' loader
RECORDED = {
    "eagle2": ("sd.", "eagle", lambda case: eagle2.load(case).drafter),
    "msd": ("sd.", "msd", lambda case: eagle2.load(case).drafter),
    "eagle3": ("sd.", "eagle3", lambda case: eagle3.load(case).drafter),
    "flash": ("weights/", "flash", lambda case: flash.load(case)[0]),
    "flash/eagle1": ("weights/", "eagle", load_eagle1),
    "vispec": ("weights/", "vispec", vispec.load_drafter),
}
FILES = sorted(OWN_CASES.glob("*/*.safetensors"))


@pytest.mark.parametrize("file", FILES, ids=[f"{file.parent.name}/{file.stem}" for file in FILES])
def test_recorded_weights(file, tmp_path):
    case = Case.read(file)
    prefix, family, load = RECORDED.get(f"{case.family}/{case.name}") or RECORDED[case.family]
    weights = {name.removeprefix(prefix): t for name, t in case.tensors.items() if name.startswith(prefix)}
    if family != "eagle3":
        weights.pop("lm_head.weight", None)  # the target's
    report = convert(save(tmp_path / "theirs", case.config, weights), tmp_path / "ours", family=family)
    converted, expected = AutoDrafter.from_pretrained(tmp_path / "ours"), load(case)
    assert report.family == family
    assert converted.state_dict().keys() == expected.state_dict().keys()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(converted.state_dict()[name], tensor), name
    assert torch.equal(converted.rotary_emb.inv_freq, expected.rotary_emb.inv_freq)
    for field in ("rms_norm_eps", "head_dim", "num_attention_heads", "num_key_value_heads", "hidden_act"):
        assert getattr(converted.config, field) == getattr(expected.config, field), field
