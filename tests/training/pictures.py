"""A folder of pictures with a table of prompts, as a user has one."""

import csv
import random

from PIL import Image, ImageDraw

_QUESTIONS = ("What is this?", "Which colour has it?", "Describe the picture.", "How large is it?")


def picture_folder(folder, count=40):
    """`count` pictures of different sizes, a question about each, and two tasks; every fifth row has no picture."""
    folder.mkdir(parents=True)
    rng = random.Random(0)
    with (folder / "prompts.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "question", "task"])
        for number in range(count):
            size = rng.randint(20, 60), rng.randint(20, 60)
            picture = Image.new("RGB", size, tuple(rng.randint(0, 255) for _ in range(3)))
            ImageDraw.Draw(picture).ellipse((4, 4, 14, 14), fill="white")
            picture.save(folder / f"{number:02d}.png")
            name = "" if number % 5 == 4 else f"{number:02d}.png"
            table.writerow([name, f"{_QUESTIONS[number % 4]} ({number})", "colours" if number % 2 else "shapes"])
    return folder
