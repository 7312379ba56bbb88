"""Records without their pictures, and cut."""

import torch

from tests.training.making import record

WHOLE = record(30, 20, ((2, 6), (8, 13)), taps=True)
WHOLE.keys_values = torch.arange(29.0)[:, None, None, None].expand(-1, 2, 2, 8)


def test_without_images():
    cut = WHOLE.without_images()
    assert (len(cut.ids), len(cut.features), len(cut.states), cut.prompt_length, cut.spans) == (21, 20, 20, 11, [])
    assert cut.image_embeds.shape == (0, 32)
    assert cut.ids.tolist() == [*WHOLE.ids[:2].tolist(), *WHOLE.ids[6:8].tolist(), *WHOLE.ids[13:].tolist()]
    assert torch.equal(cut.features[4:], WHOLE.features[13:])
    assert torch.equal(cut.states[:2], WHOLE.states[:2])
    assert cut.keys_values[:, 0, 0, 0].tolist() == [0, 1, 6, 7, *range(13, 29)]
    assert cut.answer == WHOLE.answer == WHOLE.ids[20:].tolist()


def test_cut():
    cut = WHOLE.cut_to(25)
    assert cut.ids.tolist() == WHOLE.ids[:25].tolist()
    assert torch.equal(cut.features, WHOLE.features[:24])
    assert torch.equal(cut.states, WHOLE.states[:24])
    assert torch.equal(cut.keys_values, WHOLE.keys_values[:24])
    assert (cut.prompt_length, cut.spans) == (20, WHOLE.spans)
    assert WHOLE.cut_to(30) is WHOLE
