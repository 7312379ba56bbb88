"""Whose checkpoint it is: names first, config second, doubt is an error that says how to settle it."""

import pytest
import torch

from hf_mmspec.hub import ConversionError, convert
from tests.hub.published import LAYOUTS


def set_config(**fields):
    return lambda config, tensors: config.update(fields)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_family_may_be_said_when_it_is_right(layout, write, tmp_path):
    assert (
        convert(write(layout), tmp_path / "ours", family=LAYOUTS[layout]().family).family == LAYOUTS[layout]().family
    )


@pytest.mark.parametrize(
    "layout, family", [("vispec", "msd"), ("eagle3", "eagle"), ("flash", "vispec"), ("eagle", "flash")]
)
def test_the_family_may_not_contradict_the_tensors(layout, family, write, tmp_path):
    with pytest.raises(ConversionError, match=f"names of {LAYOUTS[layout]().family}.*, not {family}"):
        convert(write(layout), tmp_path / "ours", family=family)


def test_an_unknown_family(write, tmp_path):
    with pytest.raises(ConversionError, match="--family medusa: choose one of eagle, eagle3, flash, msd, vispec"):
        convert(write("vispec"), tmp_path / "ours", family="medusa")


@pytest.mark.parametrize(
    "fields",
    [
        {"architectures": ["LlavaForConditionalGeneration"]},  # FLASH's authors trained EAGLE-1 with this config
        {"model_type": "something"},
        {"model_type": None, "architectures": None},
    ],
)
def test_eagle_or_msd_in_doubt(fields, write, tmp_path):
    source = write("msd_llava", set_config(**fields))
    with pytest.raises(ConversionError, match="say --family msd or --family eagle"):
        convert(source, tmp_path / "ours")
    report = convert(source, tmp_path / "eagle", family="eagle")
    assert (report.family, report.layout) == ("eagle", "EAGLE-1/2")


@pytest.mark.parametrize("fields", [{"vision_config": {"depth": 32}}, {"image_token_id": 119}])
def test_leftovers_of_the_target_s_config_do_not_matter(fields, write, tmp_path):
    assert convert(write("msd_qwen2_vl", set_config(**fields)), tmp_path / "ours").layout == "MSD for Qwen2-VL"


def test_a_language_model_s_architecture_is_enough_for_eagle(write, tmp_path):
    assert (
        convert(write("eagle", lambda config, tensors: config.pop("model_type")), tmp_path / "ours").family == "eagle"
    )


def test_the_family_settles_a_doubt(write, tmp_path):
    source = write("msd_llava", set_config(architectures=["LlavaForConditionalGeneration"]))
    assert convert(source, tmp_path / "ours", family="msd").layout == "MSD for LLaVA-1.5"


def test_msd_needs_a_layer_that_its_code_knows(write, tmp_path):
    with pytest.raises(ConversionError, match=r'model_type "llama" is none that MSD.s code knows'):
        convert(write("eagle"), tmp_path / "ours", family="msd")


NEWER_MSD = {
    "a config for LLaVA-1.6": set_config(model_type="llava_next", architectures=["LlavaNextForConditionalGeneration"]),
    "a config for Qwen2.5-VL": set_config(model_type="qwen2_5_vl"),
    "a config that names the target": set_config(base_model="llava-hf/llava-v1.6-vicuna-7b-hf"),
    "a config that says so": set_config(visual_compression={"type": "KMeans", "tokens": 32}),
}


@pytest.mark.parametrize("family", [None, "msd"])
@pytest.mark.parametrize("which", NEWER_MSD)
def test_newer_msd_is_refused_with_the_reason(which, family, write, tmp_path):
    source = write("msd_llava", NEWER_MSD[which])
    with pytest.raises(ConversionError, match="compress images by k-means inside the drafter; how is not published"):
        convert(source, tmp_path / "ours", family=family)
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize("layout", ["msd_llava", "msd_qwen2_vl"])
def test_newer_msd_is_known_by_its_card(layout, write, tmp_path):
    source = write(layout)
    (source / "README.md").write_text("Uses K-Means draft-side visual compression to 32 tokens by default.")
    with pytest.raises(ConversionError, match="k-means"):
        convert(source, tmp_path / "ours")


def test_newer_msd_is_known_by_its_name(write, tmp_path):
    with pytest.raises(ConversionError, match="k-means"):
        convert(write("msd_llava", name="MSD-LLaVA1.6-7B"), tmp_path / "ours")


def test_an_eagle_drafter_for_such_a_target_is_fine_when_said(write, tmp_path):
    source = write("msd_llava", set_config(model_type="qwen2_5_vl"))
    assert convert(source, tmp_path / "ours", family="eagle").family == "eagle"


def test_flash_v1_is_refused_with_the_reason(write, tmp_path):
    def first_version(config, tensors):
        kept = ("embed_tokens.weight", "layers.q_proj", "layers.k_proj", "layers.v_proj", "layers.o_proj")
        for name in [name for name in tensors if not name.startswith(kept)]:
            del tensors[name]
        tensors |= {"layers.ar_proj.0.weight": torch.ones(4, 4), "fc.weight": torch.ones(4, 8)}

    with pytest.raises(ConversionError, match=r"FLASH's first version.*cannot run.*SpecFLASH"):
        convert(write("flash", first_version), tmp_path / "ours")


@pytest.mark.parametrize("kind", ["dflash", "peagle", "mtp"])
def test_other_speculators_are_refused(kind, write, tmp_path):
    with pytest.raises(ConversionError, match=f'speculators. "{kind}" is no family'):
        convert(write("eagle3_speculators", set_config(speculators_model_type=kind)), tmp_path / "ours")


@pytest.mark.parametrize(
    "fields",
    [
        {"norm_before_fc": True},
        {"fc_norm": True},
        {"norm_output": True},
        {"embed_requires_grad": True},
        {"eagle_config": {"use_aux_hidden_state": False}},
    ],
)
def test_variants_of_eagle3_are_refused(fields, write, tmp_path):
    with pytest.raises(ConversionError, match="no drafter here has"):
        convert(write("eagle3_speculators", set_config(**fields)), tmp_path / "ours")


def test_what_speculators_must_say(write, tmp_path):
    source = write("eagle3_speculators", lambda config, tensors: config.pop("norm_before_residual"))
    with pytest.raises(ConversionError, match="does not say norm_before_residual"):
        convert(source, tmp_path / "ours")


def test_hass_is_no_eagle(write, tmp_path):
    with pytest.raises(ConversionError, match="layernorms: true"):
        convert(write("eagle_speculators", set_config(layernorms=True)), tmp_path / "ours")


def test_our_own_drafter_needs_no_conversion(write, tmp_path):
    convert(write("vispec"), tmp_path / "ours")
    with pytest.raises(ConversionError, match="is a drafter of this library already"):
        convert(tmp_path / "ours", tmp_path / "again")


def test_some_other_model(write, tmp_path):
    def language_model(config, tensors):
        tensors.clear()
        tensors["model.layers.0.self_attn.q_proj.weight"] = torch.ones(2, 2)

    with pytest.raises(ConversionError, match=r"no layout that is known here has tensors like model\.layers"):
        convert(write("eagle", language_model), tmp_path / "ours")
