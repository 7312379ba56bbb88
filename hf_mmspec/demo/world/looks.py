"""What our rewrites know about looks: of things by kind, of places, styles, changes, shapes and light.

Its border: phrases only; no word of `NOUNS` occurs in them, so that a rewrite names only what it means to show. Which
of them a rewrite uses is decided in `rewrite_text.py`.
"""

KINDS: dict[str, tuple[str, ...]] = {
    "furry": ("dog", "cat", "horse", "cow", "pig", "rabbit", "bear", "lion", "elephant", "fox"),
    "small": ("penguin", "duck", "owl", "turtle", "snake", "butterfly", "frog", "crab", "snail", "spider"),
    "marine": ("whale", "octopus"),
    "fruit": ("apple", "banana", "grapes", "cherry", "strawberry", "pineapple", "carrot", "corn", "mushroom"),
    "baked": ("bread", "cheese", "pizza", "cake"),
    "vehicle": ("car", "bus", "train", "bicycle", "rocket", "boat"),
    "tool": ("guitar", "drum", "book", "key", "clock", "camera", "umbrella", "hat", "crown", "balloon", "candle"),
    "plant": ("rose", "sunflower", "cactus", "tree"),
    "built": ("house", "castle", "tent", "robot"),
}

# How a thing of each kind looks, the favourite first.
LOOKS: dict[str, tuple[str, ...]] = {
    "furry": ("with soft, finely drawn fur and bright eyes", "with a calm face and a warm coat", "alert and gentle"),
    "small": ("with delicate details and lively colours", "small but full of character", "seen from very close"),
    "marine": ("with smooth, wet skin and a curious look", "gliding with slow grace", "glistening all over"),
    "fruit": ("fresh and ripe, with a few drops of dew", "in rich, natural colours", "with a soft shine on its skin"),
    "baked": ("freshly made, with a thin curl of steam", "with a golden crust", "with a rich and tempting texture"),
    "vehicle": ("with polished metal and clean lines", "a little worn by many journeys", "ready to set off"),
    "tool": ("with fine marks of long use", "carefully made, with crisp edges", "with a gentle shine"),
    "plant": ("with every leaf and petal sharply drawn", "full of fresh sap", "strong and healthy"),
    "built": ("with solid walls and many small details", "sturdy and inviting", "with clear, simple shapes"),
}

# Places that a wish can name: the words of the wish, and how a rewrite paints them. The first word is the place's key.
PLACES: dict[str, tuple[str, tuple[str, ...]]] = {
    "beach": ("at the beach", ("a wide beach with pale dunes and gentle surf", "a quiet beach with shells and foam")),
    "forest": (
        "in a forest",
        ("a deep forest with mossy ground and tall pines", "a forest with ferns and slanting rays"),
    ),
    "moon": (
        "on the moon",
        ("the grey dust of the moon under a black sky", "the moon with craters and a distant Earth"),
    ),
    "city": (
        "in a big city",
        ("a busy city street with glass towers", "a city square with neon signs and wet asphalt"),
    ),
    "desert": (
        "in the desert",
        ("an endless desert with rippled dunes", "a desert with red rocks and shimmering air"),
    ),
    "kitchen": (
        "in a kitchen",
        ("a cosy kitchen with copper pots and wooden shelves", "a bright kitchen with white tiles"),
    ),
    "mountains": (
        "in the mountains",
        ("high mountains with sharp ridges and thin air", "mountains above a deep valley"),
    ),
    "library": (
        "in an old library",
        ("an old library with dark shelves and ladders", "a silent library with worn carpets"),
    ),
    "jungle": (
        "in the jungle",
        ("a dense jungle with vines and broad leaves", "a steaming jungle full of green shadows"),
    ),
    "garden": (
        "in a garden",
        ("a garden with gravel paths and blooming borders", "a garden with hedges and a fountain"),
    ),
    "market": (
        "at a market",
        ("a lively market with striped awnings", "a market with crates, ropes and bright cloth"),
    ),
    "harbour": (
        "in a harbour",
        ("a small harbour with nets and wooden piers", "a harbour in the mist with calm water"),
    ),
    "circus": (
        "in a circus",
        ("a circus ring with red curtains and sawdust", "a circus with coloured lamps and banners"),
    ),
    "museum": ("in a museum", ("a museum hall with marble floors", "a museum room with tall white walls")),
    "space": (
        "in space",
        ("open space with drifting stars and a violet nebula", "space beside a slowly turning station"),
    ),
    "river": ("by a river", ("the bank of a slow river with reeds", "a clear river with round stones")),
}

# What a wish can change in a picture: its words, the key that the rewrite must use, and how it is painted.
CHANGES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "winter": (
        ("make it winter", "turn it into winter", "same picture but in winter"),
        ("a cold winter day with frost on every edge", "deep winter, with fresh flakes in the air"),
    ),
    "autumn": (
        ("make it autumn", "show it in autumn", "same picture in autumn please"),
        ("a mild autumn day with falling leaves", "late autumn, in amber and rust"),
    ),
    "spring": (
        ("make it spring", "turn it into a spring day"),
        ("an early spring morning with fresh buds", "spring, with tender green and light showers"),
    ),
    "rain": (
        ("let it rain", "add rain", "make it rain"),
        ("steady rain that draws fine lines through the air", "warm rain with rings in every puddle"),
    ),
    "fog": (
        ("add fog", "put some fog over it", "make it foggy"),
        ("thin fog that softens all distances", "dense fog from which shapes emerge slowly"),
    ),
    "sunset": (
        ("make it sunset", "show it at sunset"),
        ("a glowing sunset in orange and pink", "a late sunset with long shadows"),
    ),
    "midnight": (
        ("make it midnight", "show it at midnight"),
        ("midnight, lit only by a pale glow", "a still midnight in deep blue"),
    ),
    "storm": (
        ("add a storm", "put it into a storm"),
        ("a rising storm with dark clouds", "a wild storm with flashes at the horizon"),
    ),
    "party": (
        ("make it a party", "turn it into a party"),
        ("a cheerful party with paper garlands", "a loud party with confetti everywhere"),
    ),
    "gold": (
        ("make everything gold", "turn it all into gold"),
        ("surfaces of pure gold with warm reflections", "hammered gold from edge to edge"),
    ),
    "glass": (
        ("make everything of glass", "turn it all into glass"),
        ("clear glass that bends the light", "coloured glass with tiny bubbles"),
    ),
    "ruins": (
        ("let it look like ruins", "make it old ruins"),
        ("ancient ruins with cracks and ivy", "ruins half covered with dust"),
    ),
}

# Styles: their key is what the rewrite must name; the words of the wish, the name, and what it looks like.
STYLES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "watercolor": (
        "as a watercolor",
        "watercolor",
        ("soft washes on rough paper", "loose brushwork with blooming edges"),
    ),
    "oil": (
        "as an oil painting",
        "oil painting",
        ("thick strokes and a warm glaze", "visible canvas and deep shadows"),
    ),
    "photograph": (
        "as a photograph",
        "photograph",
        ("a shallow depth of field and fine grain", "natural colours and sharp focus"),
    ),
    "comic": ("as a comic", "comic page", ("bold outlines and flat colours", "halftone dots and strong contrast")),
    "pencil": (
        "as a pencil drawing",
        "pencil drawing",
        ("fine hatching on white paper", "soft graphite and light smudges"),
    ),
    "clay": (
        "as a clay model",
        "clay model",
        ("soft fingerprints and rounded forms", "matte surfaces under a studio lamp"),
    ),
    "origami": ("as origami", "origami scene", ("crisp folds of coloured paper", "sharp creases and simple planes")),
    "pixel": (
        "as pixel art",
        "pixel art image",
        ("a small palette and clean square dots", "the look of an early video game"),
    ),
    "mosaic": ("as a mosaic", "mosaic", ("tiny tiles with pale joints", "glazed stones in curved rows")),
    "woodcut": ("as a woodcut", "woodcut", ("strong black lines and carved texture", "rough grain and two colours")),
}
DEFAULT_STYLE = "illustration"

# Shapes that a wish can ask for: ratio -> what is said, and what the rewrite says about the composition.
SHAPES: dict[str, tuple[tuple[str, ...], str]] = {
    "21:9": (("wide, for a banner", "as a very wide banner", "for a cinema screen"), "a very wide panorama"),
    "16:9": (("for my desktop", "as a video still", "for a widescreen"), "a wide frame with room on both sides"),
    "3:2": (("as a postcard", "for a postcard"), "the calm frame of a postcard"),
    "4:3": (("for a slide", "for my slides"), "the balanced frame of a slide"),
    "3:4": (("as a portrait", "for a portrait frame"), "an upright portrait frame"),
    "2:3": (("as a poster", "for a poster"), "a tall poster with a clear centre"),
    "9:16": (("for my phone", "as a phone wallpaper", "for a story"), "a tall and narrow frame for a phone"),
    "1:1": (("as a square", "for an icon", "for my profile"), "a compact square frame"),
}
DEFAULT_RATIO = "1:1"

LIGHTS: tuple[str, ...] = (
    "Soft light falls from the upper left and leaves gentle shadows.",
    "The light is warm and low, with long and quiet shadows.",
    "Cool, even light keeps all colours clear.",
    "A bright rim of light separates the figures from the ground.",
    "Light and shadow alternate in broad, calm areas.",
)
MOODS: tuple[str, ...] = (
    "The mood is peaceful and a little dreamy.",
    "The mood is cheerful and full of energy.",
    "Everything feels quiet, as if time stood still.",
    "The whole image has an air of adventure.",
    "It should feel friendly and inviting.",
)
FINISHES: tuple[str, ...] = (
    "Highly detailed, harmonious colours, clean composition.",
    "Fine textures, balanced colours, no text and no frame.",
    "Rich detail in the foreground, soft distance behind.",
    "Clear focus on the main figures, nothing cut off.",
)
GROUNDS: dict[str, tuple[str, ...]] = {
    "grass": ("a meadow of short green grass", "fresh grass with small clovers"),
    "sand": ("fine yellow sand with soft ripples", "dry sand without footprints"),
    "snow": ("untouched white snow", "deep snow with a bluish shade"),
    "night": ("a clear night sky with tiny stars", "a dark night with a faint glow"),
    "water": ("calm blue water with small waves", "clear water that mirrors the sky"),
    "brick": ("an old brick wall with pale joints", "a red brick wall in a narrow street"),
}
