"""ViSpec's compressor of images: learned queries over their embeddings.

Knows nothing about drafting; any family may put it in front of its layers.
"""

import torch
from torch import nn

from .compressed_rows import CompressedRows


class ImageAdaptor(CompressedRows):
    """Cross-attention of `num_q` learned queries over an image's projected embeddings (ViSpec, section 3.2).

    All heads are full heads: no grouped keys, no positions, no norm. The last query's result is the global feature,
    unless `global_feature` is False: then it is a row like the others.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        head_dim: int,
        num_q: int,
        bias: bool = False,
        global_feature: bool = True,
    ):
        super().__init__()
        self.has_global_feature = global_feature
        self.rows_per_image = num_q - global_feature
        self.queries = nn.Parameter(torch.empty(num_q, num_heads, head_dim))
        self.k_proj = nn.Linear(hidden_size, num_heads * head_dim, bias=bias)
        self.v_proj = nn.Linear(hidden_size, num_heads * head_dim, bias=bias)
        self.o_proj = nn.Linear(num_heads * head_dim, hidden_size, bias=False)

    def forward(self, embeddings: torch.Tensor, key_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Compress images.

        Args:
            embeddings: `(images, tokens, H)`.
            key_mask: `bool (images, tokens)`, False at padding.

        Returns:
            `(images, num_q, H)`; the last row is the image's global feature, where there is one.
        """
        images, tokens, _ = embeddings.shape
        num_q, heads, head_dim = self.queries.shape
        keys = self.k_proj(embeddings).view(images, tokens, heads, head_dim).transpose(1, 2)
        values = self.v_proj(embeddings).view(images, tokens, heads, head_dim).transpose(1, 2)
        queries = self.queries.transpose(0, 1).expand(images, -1, -1, -1)
        mask = None if key_mask is None else key_mask[:, None, None, :]
        mixed = nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        return self.o_proj(mixed.transpose(1, 2).reshape(images, num_q, heads * head_dim))
