"""What the toy world's captions say: its vocabulary, and a small grammar that words one scene five ways."""

from collections.abc import Collection
from dataclasses import dataclass
from random import Random

from mithridate.toy.draw import pick

LONGEST_CAPTION = 16
CLASS_ONLY_SHARE = 1 / 15

# Singular and plural of each word for a class. The first is the class itself and is said most often. No word
# serves two classes, so a caption that names one class can never be read as naming another.
SYNONYMS: dict[str, tuple[tuple[str, str], ...]] = {
    "aeroplane": (
        ("aeroplane", "aeroplanes"),
        ("airplane", "airplanes"),
        ("plane", "planes"),
        ("jet", "jets"),
    ),
    "bicycle": (("bicycle", "bicycles"), ("bike", "bikes"), ("pushbike", "pushbikes")),
    "bird": (("bird", "birds"), ("songbird", "songbirds"), ("sparrow", "sparrows")),
    "boat": (("boat", "boats"), ("ship", "ships"), ("sailboat", "sailboats")),
    "bottle": (("bottle", "bottles"), ("flask", "flasks")),
    "bus": (("bus", "buses"), ("coach", "coaches"), ("minibus", "minibuses")),
    "car": (("car", "cars"), ("automobile", "automobiles"), ("sedan", "sedans")),
    "cat": (("cat", "cats"), ("kitten", "kittens"), ("kitty", "kitties")),
    "chair": (("chair", "chairs"), ("seat", "seats")),
    "cow": (("cow", "cows"), ("bull", "bulls"), ("calf", "calves")),
    "diningtable": (("diningtable", "diningtables"), ("dining table", "dining tables"), ("table", "tables")),
    "dog": (("dog", "dogs"), ("puppy", "puppies"), ("hound", "hounds")),
    "horse": (("horse", "horses"), ("pony", "ponies"), ("stallion", "stallions")),
    "motorbike": (("motorbike", "motorbikes"), ("motorcycle", "motorcycles")),
    "person": (("person", "people"), ("man", "men"), ("woman", "women"), ("human", "humans")),
    "pottedplant": (("pottedplant", "pottedplants"), ("potted plant", "potted plants"), ("plant", "plants")),
    "sheep": (("sheep", "sheep"), ("lamb", "lambs"), ("ewe", "ewes")),
    "sofa": (("sofa", "sofas"), ("couch", "couches"), ("settee", "settees")),
    "train": (("train", "trains"), ("locomotive", "locomotives")),
    "tvmonitor": (
        ("tvmonitor", "tvmonitors"),
        ("tv", "tvs"),
        ("television", "televisions"),
        ("monitor", "monitors"),
    ),
    "zebra": (("zebra", "zebras"),),
    "truck": (("truck", "trucks"), ("lorry", "lorries")),
    "skateboard": (("skateboard", "skateboards"), ("longboard", "longboards")),
    "pizza": (("pizza", "pizzas"), ("margherita", "margheritas")),
    "umbrella": (("umbrella", "umbrellas"), ("parasol", "parasols")),
    "candle": (("candle", "candles"), ("taper", "tapers")),
    "tiger": (("tiger", "tigers"), ("tigress", "tigresses")),
}
_NAMESAKE_SHARE = 0.8

SIZES: dict[str, tuple[str, ...]] = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}
NUMBERS: dict[int, tuple[str, ...]] = {
    1: ("one", "a single"),
    2: ("two", "a pair of"),
    3: ("three", "a group of three"),
}
PLACES: dict[str, tuple[str, ...]] = {
    "left": ("on the left", "on the left side", "at the left"),
    "right": ("on the right", "on the right side", "at the right"),
    "middle": ("in the middle", "in the centre", "at the centre"),
    "top": ("at the top", "near the top", "up high"),
    "bottom": ("at the bottom", "near the bottom", "down low"),
}
SETTING_WORDS: dict[str, tuple[str, ...]] = {
    "meadow": ("in a meadow", "on the grass", "in a field"),
    "beach": ("on a beach", "on the sand by the water", "at the seaside"),
    "street": ("on a street", "on the road", "in the city"),
    "snow": ("in the snow", "on a snowy day", "in a winter landscape"),
    "sea": ("on the sea", "on the ocean", "among the waves"),
    "night": ("at night", "under the stars", "under a dark sky"),
    "room": ("in a room", "inside a house", "indoors"),
    "desert": ("in the desert", "among the dunes", "in a sandy desert"),
    "forest": ("in a forest", "in the woods", "among tall trunks"),
    "mountains": ("in the mountains", "in front of the mountains", "below the peaks"),
}
EXTRA_WORDS: dict[str, tuple[str, ...]] = {
    "sun": ("the sun",),
    "cloud": ("a cloud",),
    "balloon": ("a balloon",),
    "ball": ("a ball",),
    "flower": ("a flower", "a blossom"),
    "stone": ("a stone", "a rock"),
    "fence": ("a fence",),
    "tree": ("a tree",),
    "box": ("a box", "a crate"),
    "mushroom": ("a mushroom", "a toadstool"),
}
_BESIDE = ("next to", "beside", "with", "near", "and")

_CLASS_ONLY = ("a photo of {}", "a photo of {}", "{}", "a picture of {}", "an image of {}")
_LEADS = (
    "{}", "{}", "a photo of {}", "a picture of {}", "an image of {}",
    "we see {}", "here {be} {}", "there {be} {}",
)  # fmt: skip
# For captions that say where before they say what.
_OPENINGS = ("{where} there {be} {}", "{where} {be} {}", "{where} we see {}", "{where} one can see {}")
_OPENING_SHARE = 0.2

# How often a caption says each thing that there is to say: what people mention first is said most.
_SAID = {"colour": 0.6, "size": 0.6, "number": 0.85, "setting": 0.5, "place": 0.3, "companion": 0.7}
_SAID_ALONE = 0.08
_SAID_EXTRA = 0.5


@dataclass(frozen=True)
class Scene:
    """All that a picture of the toy world shows and a caption may say."""

    label: str
    number: int
    colour: str
    size: str | None
    place: str
    setting: str
    companion: str | None
    """The class of a second object."""
    extras: tuple[str, ...]


def with_article(phrase: str) -> str:
    """`phrase` behind a or an, by its sound; of the words of the toy world alone, which need no library."""
    # "ewe" begins with a vowel on paper only.
    vowel = phrase[0] in "aeiou" and not phrase.startswith("ewe")
    return ("an " if vowel else "a ") + phrase


def noun_phrase(rng: Random, scene: Scene, said: Collection[str]) -> str:
    """The main object by one of its synonyms, with what of its number, size and colour is in `said`."""
    noun = _word_for(rng, scene.label, plural=scene.number > 1)
    if "colour" in said:
        # People are not red: what they wear is.
        noun = f"{noun} in {scene.colour}" if scene.label == "person" else f"{scene.colour} {noun}"
    if "size" in said and scene.size is not None:
        noun = f"{pick(rng, SIZES[scene.size])} {noun}"
    if "number" in said:
        return f"{pick(rng, NUMBERS[scene.number])} {noun}"
    return noun if scene.number > 1 else with_article(noun)


def caption(rng: Random, scene: Scene) -> str:
    """One way to word `scene`, at most LONGEST_CAPTION words, that always names the main object."""
    if rng.random() < CLASS_ONLY_SHARE:
        return pick(rng, _CLASS_ONLY).format(noun_phrase(rng, scene, ()))
    said = _choose(rng, scene)
    noun, be = noun_phrase(rng, scene, said), "is" if scene.number == 1 else "are"
    setting = [pick(rng, SETTING_WORDS[scene.setting])] if "setting" in said else []
    place = [pick(rng, PLACES[scene.place])] if "place" in said else []
    company = _company(rng, scene, said)
    # The place comes before the company, or it would be read as the company's.
    around = pick(rng, (place + setting + company, setting + place + company, place + company + setting))
    if (place or setting) and rng.random() < _OPENING_SHARE:
        where = pick(rng, place + setting)
        around.remove(where)
        text = pick(rng, _OPENINGS).format(noun, where=where, be=be)
    else:
        text = pick(rng, _LEADS).format(noun, be=be)
    for phrase in around:
        longer = f"{text} {phrase}"
        if len(longer.split()) <= LONGEST_CAPTION:
            text = longer
    return text


def _word_for(rng: Random, label: str, *, plural: bool) -> str:
    words = SYNONYMS[label]
    namesake = len(words) == 1 or rng.random() < _NAMESAKE_SHARE
    return (words[0] if namesake else pick(rng, words[1:]))[plural]


def _choose(rng: Random, scene: Scene) -> set[str]:
    said = {topic for topic, share in _SAID.items() if rng.random() < share}
    if scene.number == 1 and rng.random() > _SAID_ALONE:
        said.discard("number")
    said.update(extra for extra in scene.extras if rng.random() < _SAID_EXTRA)
    # What every picture has is what keeps a caption from fitting too many of them. More than this is not said: a model
    # that can tell pictures apart by colours and settings is slow to learn what they show.
    if not said & {"colour", "setting", "place"} and rng.random() < 0.9:
        said.add(pick(rng, ("colour", "setting", "place")))
    return said


def _company(rng: Random, scene: Scene, said: Collection[str]) -> list[str]:
    phrases = []
    if scene.companion is not None and "companion" in said:
        phrases.append(f"{pick(rng, _BESIDE)} {with_article(_word_for(rng, scene.companion, plural=False))}")
    present = [extra for extra in scene.extras if extra in said]
    return phrases + [f"{pick(rng, _BESIDE)} {pick(rng, EXTRA_WORDS[extra])}" for extra in present]
