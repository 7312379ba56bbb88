"""Options that several commands have: one wording each. Their defaults are the commands'.

Imports nothing heavy, so that help answers at once.
"""

from typing import Annotated

import typer

Model = Annotated[str | None, typer.Option(help="Target: folder or Hub repository. Default: the embedded one.")]
DrafterName = Annotated[str | None, typer.Option("--drafter", help="Drafter: folder or Hub repository.")]
MaybeDrafter = Annotated[
    str | None,
    typer.Option("--drafter", help="Drafter: folder or Hub repository. With --model and without it, none drafts."),
]
Dtype = Annotated[str, typer.Option(help="auto (this machine's fast one), float32, bfloat16 or float16.")]
Quantize = Annotated[str | None, typer.Option(help="Pack the target's weights: nf4 or int8.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of the processor. Default: torch's.")]
NewTokens = Annotated[int, typer.Option(min=1, help="Length limit of an answer.")]
Temperature = Annotated[float, typer.Option(min=0, help="0 decodes greedily.")]
