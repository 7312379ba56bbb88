"""ViSpec once more, slowly: no cache, no batch, one row after another, straight from the description."""

import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb


def slow_rows(drafter, embeds, features, spans):
    """`(inputs, positions)` of all rows for embeddings (L + 1) and features (L), image by image."""
    inputs, positions, seen = [], [], torch.zeros(features.shape[-1])
    kept = drafter.config.num_q - drafter.config.global_feature
    images = dict(spans)
    slot = -1 if 0 in images else 0  # an image at the very start has one slot less than tokens
    while slot < len(features):
        following = slot + 1  # the position whose embedding this slot reads
        if following in images:
            stop = images[following]
            rows = slow_adaptor(drafter.image_adaptor, embeds[following:stop])
            room = min(kept, stop - 1 - max(slot, 0))
            inputs += list(rows[kept - room : kept])
            positions += range(stop - 1 - room, stop - 1)
            seen, slot = rows[-1], stop - 1
        else:
            mixed = features[slot]
            if drafter.config.global_feature:
                mixed = drafter.img_fc(torch.cat([mixed, seen]))
            inputs.append(drafter.fc(torch.cat([embeds[following], mixed])))
            positions.append(slot)
            slot += 1
    return torch.stack(inputs), torch.tensor(positions)


def slow_adaptor(adaptor, embeddings):
    _, heads, width = adaptor.queries.shape
    keys = adaptor.k_proj(embeddings).view(-1, heads, width)
    values = adaptor.v_proj(embeddings).view(-1, heads, width)
    rows = []
    for query in adaptor.queries:
        mixed = [((keys[:, h] @ query[h]) / width**0.5).softmax(0) @ values[:, h] for h in range(heads)]
        rows.append(adaptor.o_proj(torch.cat(mixed)))
    return torch.stack(rows)


def slow_layer(drafter, inputs, positions):
    """One causal layer without input norm over all rows."""
    layer, config = drafter.layers[0], drafter.config
    attention, width = layer.self_attn, config.head_dim

    def split(states):
        return states.view(len(inputs), -1, width).transpose(0, 1)[None]

    queries, keys = split(attention.q_proj(inputs)), split(attention.k_proj(inputs))
    values = split(attention.v_proj(inputs))[0]
    cos, sin = drafter.rotary_emb(inputs[None], positions[None])
    queries, keys = (states[0] for states in apply_rotary_pos_emb(queries, keys, cos, sin))
    group = config.num_attention_heads // config.num_key_value_heads
    mixed = []
    for head in range(config.num_attention_heads):
        scores = queries[head] @ keys[head // group].T / width**0.5
        scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), float("-inf"))
        mixed.append(scores.softmax(-1) @ values[head // group])
    x = inputs + attention.o_proj(torch.cat(mixed, dim=-1))
    return x + layer.mlp(layer.post_attention_layernorm(x))
