"""The object that a rewrite is: four fields, in the order in which they are written.

Its border: fields and their values. The words that a model is told are in `instruction.py`.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from .instruction import rewrite_json


class Rewrite(BaseModel):
    """What an image generator gets in place of a wish.

    Attributes:
        reasoning: what the pictures show and what is wished; empty where no thinking was allowed.
        task: what the generator has to do.
        aspect_ratio: width to height.
        rewritten_prompt: the description of the image.

    Raises:
        pydantic.ValidationError: (a ValueError) a field is missing or unknown, or a value is not among the choices.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reasoning: str
    task: Literal["text_to_image", "edit", "reference", "multi_reference"]
    aspect_ratio: Literal["1:1", "4:3", "3:4", "3:2", "2:3", "16:9", "9:16", "21:9"]
    rewritten_prompt: str = Field(min_length=1)

    def to_line(self) -> str:
        """The one line of JSON that was written."""
        return rewrite_json(**self.model_dump())


def json_schema(thinking: int) -> dict[str, Any]:
    """The JSON schema of a rewrite with at most `thinking` tokens of reasoning; with 0 it is empty, as schemas say."""
    schema = Rewrite.model_json_schema()
    if thinking == 0:
        schema["properties"]["reasoning"] = {"const": ""}
    return schema
