"""The papers that drafters come from, and how to cite them: a family is one more entry.

Facts as arXiv has them; knows no drafter.
"""

from dataclasses import dataclass

_EAGLE_AUTHORS = ("Yuhui Li", "Fangyun Wei", "Chao Zhang", "Hongyang Zhang")


@dataclass(frozen=True)
class Paper:
    """A paper.

    Args:
        method: what people call the drafter.
        title, authors, year: of the first version.
        arxiv: its id there.
    """

    method: str
    title: str
    authors: tuple[str, ...]
    year: int
    arxiv: str

    @property
    def link(self) -> str:
        """Its page."""
        return f"https://arxiv.org/abs/{self.arxiv}"

    def bibtex(self) -> str:
        """An entry for a bibliography."""
        key = f"{self.authors[0].split()[-1]}{self.year}{self.method}".lower().replace("-", "")
        fields = {
            "title": f"{{{self.title}}}",
            "author": f"{{{' and '.join(self.authors)}}}",
            "year": f"{{{self.year}}}",
            "eprint": f"{{{self.arxiv}}}",
            "archivePrefix": "{arXiv}",
            "url": f"{{{self.link}}}",
        }
        lines = ",\n".join(f"  {name:<13} = {value}" for name, value in fields.items())
        return f"@misc{{{key},\n{lines}\n}}"


# by model_type
PAPERS = {
    "eagle": Paper(
        "EAGLE-2",
        "EAGLE-2: Faster Inference of Language Models with Dynamic Draft Trees",
        _EAGLE_AUTHORS,
        2024,
        "2406.16858",
    ),
    "eagle3": Paper(
        "EAGLE-3",
        "EAGLE-3: Scaling up Inference Acceleration of Large Language Models via Training-Time Test",
        _EAGLE_AUTHORS,
        2025,
        "2503.01840",
    ),
    "flash": Paper(
        "FLASH",
        "FLASH: Latent-Aware Semi-Autoregressive Speculative Decoding for Multimodal Tasks",
        ("Zihua Wang", "Ruibo Li", "Haozhe Du", "Joey Tianyi Zhou", "Yu Zhang", "Xu Yang"),
        2025,
        "2505.12728",
    ),
    "msd": Paper(
        "MSD",
        "Speculative Decoding Reimagined for Multimodal Large Language Models",
        ("Luxi Lin", "Zhihang Lin", "Zhanpeng Zeng", "Rongrong Ji"),
        2025,
        "2505.14260",
    ),
    "vispec": Paper(
        "ViSpec",
        "ViSpec: Accelerating Vision-Language Models with Vision-Aware Speculative Decoding",
        ("Jialiang Kang", "Han Shu", "Wenshuo Li", "Yingjie Zhai", "Xinghao Chen"),
        2025,
        "2509.15235",
    ),
}
