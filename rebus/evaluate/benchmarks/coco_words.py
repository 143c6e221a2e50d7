"""What people call the 80 things of COCO in a caption, and the things that a caption names.

The table is ours. CHAIR's published numbers use the paper's own list (Rohrbach et al., 2018), with which these are
close but not equal: compare models by one list only.
"""

import re

# thing: other words for it, singular; plurals are worked out
_OTHERS = """
person: man, woman, child, kid, boy, girl, baby, toddler, infant, lady, guy, gentleman, adult, people, human, friend,
    player, batter, catcher, pitcher, umpire, referee, athlete, skier, skater, skateboarder, snowboarder, surfer, rider,
    cyclist, bicyclist, biker, motorcyclist, driver, pedestrian, passenger, worker, chef, cook, officer, policeman,
    policewoman, cop, soldier, fireman, firefighter, student, teacher, couple, crowd, family, spectator, bride, groom,
    mother, father, mom, dad, son, daughter, sister, brother, husband, wife, male, female, teenager, teen, tourist,
    customer, farmer, cowboy, vendor, doctor, nurse, musician, performer, swimmer, runner, jockey, actor, businessman,
    someone, youth, grandmother, grandfather
bicycle: bike, cycle, tricycle
car: automobile, van, minivan, sedan, suv, taxi, cab, jeep, hatchback, coupe, limousine, convertible, police car
motorcycle: motorbike, motor bike, motor cycle, moped, scooter, dirt bike, motor scooter, vespa
airplane: plane, aeroplane, air plane, jet, aircraft, airliner, jetliner, biplane, fighter jet, seaplane
bus: minibus, trolley bus, double decker, coach bus, school bus
train: locomotive, subway train, tram, trolley, freight train, steam engine
truck: pickup, lorry, firetruck, semi, tow truck, garbage truck, fire truck, fire engine, pick up truck, food truck
boat: ship, canoe, kayak, sailboat, rowboat, raft, ferry, yacht, gondola, motorboat, barge, dinghy, sail boat, row boat
traffic light: stoplight, stop light, traffic signal, street signal, trafficlight, signal light
fire hydrant: hydrant
stop sign: stopsign
parking meter: meter
bench: park bench, pew
bird: pigeon, seagull, gull, duck, goose, owl, parrot, eagle, hawk, crow, ostrich, swan, sparrow, penguin, chicken,
    rooster, hen, turkey, flamingo, pelican, peacock, stork, heron, robin, parakeet, duckling, cockatoo, hummingbird
cat: kitten, kitty, feline, tabby
dog: puppy, pup, poodle, dachshund, labrador, retriever, bulldog, terrier, beagle, chihuahua, collie, hound, corgi,
    pug, canine, dalmatian, spaniel, pit bull
horse: pony, foal, colt, mare, stallion, mustang
sheep: lamb, ram, ewe
cow: cattle, bull, calf, ox, oxen, steer, heifer, longhorn
elephant:
bear: polar bear, grizzly, panda, cub
zebra:
giraffe:
backpack: knapsack, rucksack, back pack, book bag
umbrella: parasol
handbag: purse, hand bag, pocketbook
tie: necktie, bow tie, bowtie
suitcase: luggage, suit case, baggage, briefcase
frisbee: flying disc, flying disk
skis: ski
snowboard: snow board
sports ball: ball, baseball, basketball, football, soccer ball, tennis ball, volleyball
kite:
baseball bat: bat
baseball glove: mitt, catcher's mitt, baseball mitt
skateboard: skate board, longboard
surfboard: surf board, boogie board, bodyboard, paddle board, paddleboard
tennis racket: racket, racquet, tennis racquet
bottle: beer bottle, wine bottle, water bottle
wine glass: wineglass, goblet, champagne glass
cup: mug, teacup, coffee cup
fork:
knife: butter knife, pocketknife, steak knife
spoon: tablespoon, teaspoon, ladle
bowl:
banana: plantain
apple:
sandwich: burger, hamburger, cheeseburger, sub, panini, blt, grilled cheese
orange: tangerine, clementine, mandarin
broccoli:
carrot:
hot dog: hotdog, frankfurter, chili dog, corn dog
pizza: slice of pizza
donut: doughnut, bagel
cake: cupcake, cheesecake, birthday cake, wedding cake
chair: armchair, stool, recliner, rocking chair
couch: sofa, loveseat, futon, settee
potted plant: houseplant, plant, flower pot, potted flower, pot plant
bed: mattress, bunk bed, cot
dining table: table, desk, tabletop, coffee table, kitchen table, picnic table
toilet: urinal, commode, toilet seat, toilet bowl
tv: television, television set, tv set, flat screen
laptop: notebook computer, laptop computer, macbook, computer, netbook
mouse: computer mouse
remote: remote control, controller, wii remote, wiimote
keyboard: computer keyboard
cell phone: cellphone, mobile phone, phone, smartphone, iphone, smart phone, telephone
microwave: microwave oven
oven: stove, stovetop, range oven
toaster:
sink: basin, washbasin
refrigerator: fridge, freezer
book: novel, magazine, textbook
clock: clock tower, alarm clock
vase: urn
scissors: scissor, shears
teddy bear: teddy, stuffed bear, stuffed animal, plush bear
hair drier: hairdryer, hair dryer, blow dryer, blowdryer, hairdrier
toothbrush: tooth brush
"""
# Longer phrases win, so these hide the words inside them.
_NOTHING = (
    "baseball player,baseball game,baseball field,baseball uniform,baseball cap,baseball team,baseball diamond,"
    "basketball court,football field,football player,ball game,ball field,train track,train station,train tracks,"
    "bus stop,bus station,car seat,car park,toy car,cable car,baby elephant,baby giraffe,baby zebra,baby bear,"
    "baby sheep,baby cow,baby bird,adult elephant,adult giraffe,adult zebra,adult bear,male lion,table tennis,"
    "table cloth,bed room,bath room,boat house,boat dock,horse drawn carriage,cat food,dog food,bird house,bird cage,"
    "bird bath,book shelf,book case,phone booth,cup holder,bowling ball,cake mix,plane ticket,pizza box,pizza cutter,"
    "apple computer,power plant,keyboard player,bottle opener,fire place,range of,mountain bike trail,tie dye,"
    "chair lift,ski lift,ski slope,ski resort,ski pole,ski lodge,kite string,carrot cake,banana bread,apple pie,"
    "apple juice,orange juice,dog house,sports field"
).split(",")
_INSIDE = {  # what such a phrase holds after all
    "baseball player": "person",
    "football player": "person",
    "carrot cake": "cake",
    "apple computer": "laptop",
    **{f"{age} {animal}": animal for age in ("baby", "adult") for animal in ("elephant", "giraffe", "zebra", "bear")},
    **{f"baby {animal}": animal for animal in ("sheep", "cow", "bird")},
}
# "An orange cat" holds no fruit: as a colour the word stands before what it colours.
_COLOURS = frozenset("orange white black grey gray brown red blue green yellow pink purple".split())
_AFTER_A_THING = frozenset(
    "and or in on at is are with next beside near sitting from of that to by under behind".split()
)
_IRREGULAR = {
    "men": "man", "women": "woman", "children": "child", "policemen": "policeman", "policewomen": "policewoman",
    "firemen": "fireman", "gentlemen": "gentleman", "businessmen": "businessman", "cowboys": "cowboy", "geese": "goose",
    "mice": "mouse", "knives": "knife", "calves": "calf", "people": "people", "persons": "person", "wives": "wife",
    "oxen": "oxen", "skis": "skis", "scissors": "scissors", "shears": "shears", "bus": "bus", "buses": "bus",
    "tennis": "tennis", "sheep": "sheep", "canoes": "canoe", "glasses": "glasses", "series": "series",
    "movies": "movie", "cookies": "cookie", "ties": "tie", "selfies": "selfie", "doggies": "doggy", "canvas": "canvas",
}  # fmt: skip

_WORD = re.compile(r"[a-z']+|[.,;:!?]")


def _table() -> tuple[tuple[str, ...], dict[tuple[str, ...], str | None]]:
    """The things in COCO's order, and phrase → thing, or None for a phrase that is none of them."""
    names, table = [], {}
    text = _OTHERS.strip().replace("\n    ", " ")
    for line in text.splitlines():
        name, _, others = line.partition(":")
        names.append(name)
        for phrase in (name, *(other.strip() for other in others.split(",") if other.strip())):
            table[tuple(singular(word) for word in phrase.split())] = name
    hidden: dict[tuple[str, ...], str | None] = {
        tuple(singular(word) for word in phrase.split()): _INSIDE.get(phrase) for phrase in _NOTHING
    }
    return tuple(names), {**table, **hidden}


def singular(word: str) -> str:
    """The singular of an English noun, by its ending; other words may come out odd, but always the same."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is", "'s")):
        return word.removesuffix("'s")
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "sses", "xes", "zes", "oes")):
        return word[:-2]
    return word[:-1]


def _is_colour(written: list[str], at: int) -> bool:
    after, then = (*written[at + 1 : at + 3], ".", ".")[:2]
    if written[at] not in _COLOURS or not after.isalpha():
        return False
    return after not in _AFTER_A_THING or (after in ("and", "or") and then in _COLOURS)


THINGS, _PHRASES = _table()
_LONGEST = max(map(len, _PHRASES))


def things_in(caption: str) -> list[str]:
    """The things of COCO that a caption names, each mention once, in order."""
    written = _WORD.findall(caption.lower())
    words = [singular(word) for word in written]
    found: list[str] = []
    at = 0
    while at < len(words):
        size = next((n for n in range(_LONGEST, 0, -1) if tuple(words[at : at + n]) in _PHRASES), 0)
        if size:
            name = _PHRASES[tuple(words[at : at + size])]
            if name is not None and not (size == 1 and _is_colour(written, at)):
                found.append(name)
        at += max(size, 1)
    return found
