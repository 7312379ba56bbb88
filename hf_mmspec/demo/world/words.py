"""The small world of the embedded default: what can be seen, and the one word each thing is called by.

Words only: how things are painted is in `scene.py` and `chart.py`, what is said about them in `knowledge.py`.
Every word is a single token of SmolLM2 with its leading space, so that one visual token can stand for one word.
"""

# noun -> name of its Noto emoji in the icon set
NOUNS: dict[str, str] = {
    "dog": "dog",
    "cat": "cat",
    "horse": "horse",
    "cow": "cow",
    "pig": "pig",
    "rabbit": "rabbit",
    "bear": "bear",
    "lion": "lion",
    "elephant": "elephant",
    "fox": "fox",
    "penguin": "penguin",
    "duck": "duck",
    "owl": "owl",
    "turtle": "turtle",
    "snake": "snake",
    "whale": "whale",
    "octopus": "octopus",
    "butterfly": "butterfly",
    "frog": "frog",
    "crab": "crab",
    "snail": "snail",
    "spider": "spider",
    "apple": "red-apple",
    "banana": "banana",
    "grapes": "grapes",
    "cherry": "cherries",
    "strawberry": "strawberry",
    "pineapple": "pineapple",
    "carrot": "carrot",
    "corn": "ear-of-corn",
    "bread": "bread",
    "cheese": "cheese-wedge",
    "pizza": "pizza",
    "cake": "birthday-cake",
    "mushroom": "mushroom",
    "car": "automobile",
    "bus": "bus",
    "train": "locomotive",
    "bicycle": "bicycle",
    "rocket": "rocket",
    "boat": "sailboat",
    "guitar": "guitar",
    "drum": "drum",
    "book": "closed-book",
    "key": "key",
    "clock": "alarm-clock",
    "camera": "camera",
    "umbrella": "umbrella",
    "hat": "top-hat",
    "crown": "crown",
    "balloon": "balloon",
    "candle": "candle",
    "rose": "rose",
    "sunflower": "sunflower",
    "cactus": "cactus",
    "tree": "deciduous-tree",
    "house": "house",
    "castle": "castle",
    "tent": "tent",
    "robot": "robot",
}

BACKGROUNDS: tuple[str, ...] = ("grass", "sand", "snow", "night", "water", "brick")
PAPER = "paper"  # the background of charts
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 58, 52),
    "blue": (52, 104, 214),
    "green": (58, 160, 76),
    "purple": (140, 72, 176),
}
NUMBERS: tuple[str, ...] = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ROWS: tuple[str, ...] = ("top", "middle", "bottom")
COLUMNS: tuple[str, ...] = ("left", "center", "right")

# What a patch can show, in the order of the classes that the vision tower learns.
PATCH_WORDS: tuple[str, ...] = (*NOUNS, *BACKGROUNDS, PAPER, *COLOURS)
