"""What our texts know about each thing and each background: a few sentences, the first one said most often.

Its border: sentences only. Which of them a text uses is decided in `scene_text.py`.
"""

THING_FACTS: dict[str, tuple[str, str, str]] = {
    "dog": (
        "it wags its tail whenever a friend comes near",
        "it is known for its loyalty and its good nose",
        "it would love to chase a stick",
    ),
    "cat": (
        "it likes to sleep in a warm and quiet spot",
        "it can see very well in the dark",
        "it always seems to land on its feet",
    ),
    "horse": (
        "it can run for miles without getting tired",
        "it has carried people for thousands of years",
        "it enjoys fresh hay and open fields",
    ),
    "cow": (
        "it gives the milk that we drink in the morning",
        "it spends most of the day chewing grass",
        "it has four chambers in its stomach",
    ),
    "pig": (
        "it rolls in the mud to keep cool",
        "it is far smarter than most people think",
        "it uses its round snout to dig for food",
    ),
    "rabbit": (
        "it hears every sound with its long ears",
        "it hops away as soon as it is scared",
        "it digs deep holes to live in",
    ),
    "bear": (
        "it sleeps through most of the winter",
        "it is strong and very fond of honey",
        "it catches fish in cold rivers",
    ),
    "lion": (
        "it rules over its family with a loud roar",
        "it has a thick mane around its head",
        "it rests in the shade for most of the day",
    ),
    "elephant": (
        "it lifts heavy things with its long trunk",
        "it never seems to forget a path",
        "it is the largest animal that walks on land",
    ),
    "fox": (
        "it is clever and moves without a sound",
        "it has a thick orange coat and a bushy tail",
        "it hunts mostly in the evening",
    ),
    "penguin": (
        "it cannot fly but swims like an arrow",
        "it keeps its eggs warm on its feet",
        "it lives in large and noisy groups",
    ),
    "duck": (
        "it swims in calm ponds and quacks loudly",
        "it has feathers that keep out the water",
        "it leads its chicks in a neat line",
    ),
    "owl": (
        "it hunts at night with huge round eyes",
        "it can turn its head almost all the way around",
        "it stands for wisdom in many stories",
    ),
    "turtle": (
        "it hides inside its hard shell when in danger",
        "it moves slowly and lives for a very long time",
        "it lays its eggs in warm sand",
    ),
    "snake": (
        "it slides over the ground without any legs",
        "it smells the air with its tongue",
        "it sheds its old skin every year",
    ),
    "whale": (
        "it sings long songs deep under the sea",
        "it comes up for air and blows a tall spout",
        "it is one of the largest animals of all",
    ),
    "octopus": (
        "it has eight arms and can change its colour",
        "it squeezes through the smallest holes",
        "it has three hearts and blue blood",
    ),
    "butterfly": (
        "it began its life as a small caterpillar",
        "it flies from blossom to blossom with bright wings",
        "it tastes with its feet",
    ),
    "frog": (
        "it catches flies with a long sticky tongue",
        "it jumps far with its strong back legs",
        "it croaks loudly on summer nights",
    ),
    "crab": (
        "it walks sideways and pinches with its claws",
        "it hides under stones near the shore",
        "it carries its skeleton on the outside",
    ),
    "snail": (
        "it carries its home on its back",
        "it leaves a silver trail behind",
        "it is in no hurry at all",
    ),
    "spider": (
        "it waits patiently in the web it has made",
        "it has eight legs and many eyes",
        "it spins a thread stronger than steel",
    ),
    "apple": (
        "it is crisp, sweet and good for a snack",
        "it fell from a branch in early autumn",
        "it would make a fine pie",
    ),
    "banana": (
        "it is easy to peel and full of energy",
        "it grows in bunches in hot countries",
        "it turns brown when it is kept too long",
    ),
    "grapes": (
        "they grow on vines along sunny hills",
        "they can be dried to make raisins",
        "they taste sweet and burst in the mouth",
    ),
    "cherry": (
        "it has a hard stone hidden inside",
        "it is small, red and ripe in early summer",
        "it often sits on top of a dessert",
    ),
    "strawberry": (
        "it smells of summer and tastes of sugar",
        "it wears its seeds on the outside",
        "it goes very well with cream",
    ),
    "pineapple": (
        "it hides sweet yellow flesh under a rough skin",
        "it wears a tuft of sharp green leaves",
        "it takes two years to grow",
    ),
    "carrot": (
        "it grows under the ground and tastes a little sweet",
        "it is said to be good for the eyes",
        "it makes a nice nose for a snowman",
    ),
    "corn": (
        "it has rows of yellow kernels under its leaves",
        "it can be turned into popcorn",
        "it grows taller than a person",
    ),
    "bread": (
        "it was baked this morning and smells wonderful",
        "it needs only flour, water, salt and time",
        "it tastes best with a little butter",
    ),
    "cheese": (
        "it is made from milk and gets better with age",
        "it has small holes and a strong smell",
        "it melts nicely on warm toast",
    ),
    "pizza": (
        "it is hot and covered with melted toppings",
        "it comes from a stone oven in Italy",
        "it is best shared with friends",
    ),
    "cake": (
        "it is ready for a birthday party",
        "it is sweet, soft and covered with icing",
        "it will be cut into many slices",
    ),
    "mushroom": (
        "it grows overnight after a heavy rain",
        "it has a round cap with pale spots",
        "it should not be eaten without asking an expert",
    ),
    "car": (
        "it takes a family wherever they want to go",
        "it needs fuel, four tyres and a careful driver",
        "it is parked with its engine off",
    ),
    "bus": (
        "it carries many people through the city",
        "it stops at every corner to let people in",
        "it is cheaper than taking a taxi",
    ),
    "train": (
        "it runs on steel rails and is rarely late",
        "it pulls long wagons across the country",
        "it blows white steam into the air",
    ),
    "bicycle": (
        "it needs no fuel, only two strong legs",
        "it is the fastest way through a busy town",
        "it has two wheels and a simple chain",
    ),
    "rocket": (
        "it flies to space with a roar of flames",
        "it must be faster than any plane",
        "it could carry a crew to the moon",
    ),
    "boat": (
        "it sails quietly when the wind is good",
        "it crosses the lake with a white sail",
        "it needs a captain who knows the weather",
    ),
    "guitar": (
        "it has six strings and a warm sound",
        "it is played around many campfires",
        "it takes years to master",
    ),
    "drum": (
        "it keeps the rhythm of the whole band",
        "it is loud enough to wake the neighbours",
        "it is struck with two wooden sticks",
    ),
    "book": (
        "it tells a long story to anyone who opens it",
        "it was borrowed from the library",
        "it has hundreds of printed pages",
    ),
    "key": (
        "it opens a door that nobody remembers",
        "it is small and easy to lose",
        "it fits only one lock",
    ),
    "clock": (
        "it rings loudly early in the morning",
        "it counts the hours with two hands",
        "it has never been a minute late",
    ),
    "camera": (
        "it keeps a moment for many years",
        "it needs good light to take a sharp picture",
        "it belongs to a traveller",
    ),
    "umbrella": (
        "it keeps people dry when it rains",
        "it is often forgotten at work",
        "it turns inside out in a storm",
    ),
    "hat": (
        "it makes its owner look very elegant",
        "it might hide a magician's trick",
        "it is tall, black and a bit old",
    ),
    "crown": (
        "it is made of gold and worn by a queen",
        "it shines with precious stones",
        "it is heavier than it looks",
    ),
    "balloon": (
        "it floats up as soon as you let it go",
        "it is filled with nothing but air",
        "it pops when it touches a needle",
    ),
    "candle": (
        "it gives a soft and quiet light",
        "it burns slowly until the wax is gone",
        "it is useful when the power fails",
    ),
    "rose": (
        "it smells lovely but has sharp thorns",
        "it is a common gift for someone dear",
        "it needs sun and a lot of care",
    ),
    "sunflower": (
        "it turns its face toward the sun",
        "it is full of seeds that birds enjoy",
        "it can grow taller than a man",
    ),
    "cactus": (
        "it stores water for the long dry season",
        "it is covered with sharp spines",
        "it blooms only once in a while",
    ),
    "tree": (
        "it gives shade and fresh air to everyone",
        "it has stood in its place for a hundred years",
        "it is home to birds and squirrels",
    ),
    "house": (
        "it has a warm kitchen and a red roof",
        "it is waiting for its family to come home",
        "it was built by careful hands",
    ),
    "castle": (
        "it was built of stone to keep enemies out",
        "it once belonged to a king",
        "it has tall towers and thick walls",
    ),
    "tent": (
        "it is light and ready for a night outside",
        "it keeps campers dry and warm",
        "it can be put up in ten minutes",
    ),
    "robot": (
        "it follows orders and never gets tired",
        "it is made of metal and many wires",
        "it beeps when its battery is low",
    ),
}

BACKGROUND_FACTS: dict[str, tuple[str, str, str]] = {
    "grass": (
        "green grass that was cut not long ago",
        "soft grass on a fresh spring day",
        "a wide field of grass",
    ),
    "sand": (
        "warm sand close to the sea",
        "dry yellow sand without a single footprint",
        "fine sand under a hot sun",
    ),
    "snow": (
        "clean white snow that fell during the night",
        "deep snow on a cold winter day",
        "fresh snow without any tracks",
    ),
    "night": (
        "a clear night full of tiny stars",
        "a dark and quiet night",
        "the night sky far away from the city",
    ),
    "water": (
        "calm blue water with gentle waves",
        "clear water that sparkles in the light",
        "cool water on a sunny afternoon",
    ),
    "brick": (
        "a red brick wall with pale lines",
        "an old brick wall in a narrow street",
        "a solid brick wall",
    ),
}

# What a scene ends with, by its background.
CLOSINGS: dict[str, tuple[str, str, str]] = {
    "grass": (
        "It feels like a peaceful day in the park.",
        "It would be a good place for a picnic.",
        "One can almost smell the fresh air.",
    ),
    "sand": (
        "It feels like a holiday at the beach.",
        "One would like to walk there without shoes.",
        "The heat must be hard to stand at noon.",
    ),
    "snow": (
        "It feels cold, bright and very still.",
        "Everyone there should wear a warm coat.",
        "Winter has clearly arrived.",
    ),
    "night": (
        "It feels calm and a little mysterious.",
        "Most people would be asleep at this hour.",
        "A small lamp would be useful there.",
    ),
    "water": (
        "It feels fresh, and everything seems to float.",
        "It is a strange place to keep such things dry.",
        "A swim would be nice on such a day.",
    ),
    "brick": (
        "It feels like a corner of an old town.",
        "Someone may have painted it there for fun.",
        "The wall has surely seen many years.",
    ),
}
