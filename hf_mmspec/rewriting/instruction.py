"""What a model is told before it rewrites a wish: the words of the instruction, the tasks and the aspect ratios.

Its border: words and messages. Neither torch nor pydantic is needed to read them; the object that comes back is
`rewrite.py`.
"""

import json
from typing import Any

TASKS = ("text_to_image", "edit", "reference", "multi_reference")
ASPECT_RATIOS = ("1:1", "4:3", "3:4", "3:2", "2:3", "16:9", "9:16", "21:9")
FIELDS = ("reasoning", "task", "aspect_ratio", "rewritten_prompt")  # in the order in which they are written

SYSTEM_PROMPT = (
    "You rewrite wishes for an image generator. Answer with one JSON object: reasoning (what the pictures show and "
    f"what is wished), task ({', '.join(TASKS[:-1])} or {TASKS[-1]}), aspect_ratio ({', '.join(ASPECT_RATIOS[:-1])} "
    f"or {ASPECT_RATIOS[-1]}) and rewritten_prompt (one long and detailed description of the image)."
)


def rewriting_messages(wish: str, pictures: int = 0) -> list[dict[str, Any]]:
    """The chat that asks for a rewrite: our instruction, then `pictures` image parts and the wish."""
    images = [{"type": "image"}] * pictures
    return [
        {"role": "system", "content": [{"type": "text", "text": SYSTEM_PROMPT}]},
        {"role": "user", "content": [*images, {"type": "text", "text": wish}]},
    ]


def rewrite_json(reasoning: str, task: str, aspect_ratio: str, rewritten_prompt: str) -> str:
    """The object as our grammar writes it: one line, fields in order, a space after each comma and colon."""
    values = (reasoning, task, aspect_ratio, rewritten_prompt)
    return json.dumps(dict(zip(FIELDS, values, strict=True)), ensure_ascii=False)
