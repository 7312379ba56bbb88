"""What a conversion did, for people and for `conversion.json`."""

from dataclasses import asdict, dataclass
from typing import Any

from .plan import Plan


@dataclass(frozen=True)
class Report:
    """What became of a checkpoint.

    Args:
        source, commit: where it comes from.
        destination: where the drafter is.
        family, layout: our family, and the authors' layout that was recognised.
        dtype: of most weights.
        renamed: authors' name -> ours, of every tensor that was taken, bit by bit.
        left_out: authors' name -> why.
        notes: what a user should know.
    """

    source: str
    commit: str | None
    destination: str
    family: str
    layout: str
    dtype: str
    renamed: dict[str, str]
    left_out: dict[str, str]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, plan: Plan, destination: str) -> "Report":
        """The report of a plan that is carried out."""
        made = {ours: ours for ours in plan.made if ours in plan.checkpoint.tensors}
        return cls(
            source=plan.checkpoint.source,
            commit=plan.checkpoint.commit,
            destination=destination,
            family=plan.layout.family,
            layout=plan.layout.title,
            dtype=str(plan.config.dtype).removeprefix("torch."),
            renamed={theirs: ours for ours, theirs in plan.sources.items()} | made,
            left_out=plan.left_out,
            notes=plan.layout.notes,
        )

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """As text, a line each."""
        return [
            f"family    {self.family} ({self.layout}), {self.dtype}",
            f"taken     {len(self.renamed)} tensors, bit by bit",
            *(f"left out  {name}: {why}" for name, why in self.left_out.items()),
            *(f"note      {note}" for note in self.notes),
            f"written   {self.destination}",
        ]
