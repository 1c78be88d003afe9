"""The words of the story grammar, by class, commonest first. A word belongs to one class alone, so parsing is unambiguous."""

from __future__ import annotations


def _words(text: str) -> list[str]:
    return text.split()


GIRLS = _words("lily mia anna lucy sara")
BOYS = _words("tom ben max sam tim")
PETS = _words("dog cat bird fish pony duck mouse frog")
THINGS = _words("ball kite doll boat drum book hat box")
ADJECTIVES = _words("""
little big red happy small blue tall kind green pretty soft yellow funny shiny brave white loud pink warm quiet
clever round purple silly gentle golden fluffy sleepy striped dusty tiny curious wooden spotted polite crooked lonely
silver sticky grumpy velvet rusty nimble humble
""")
MOVES = _words("""
went ran walked came hurried jumped raced skipped hopped marched climbed rolled wandered crept swam drifted galloped
tiptoed paddled stumbled
""")
PLACES = _words("""
park house garden river forest beach school lake hill farm shop pond kitchen tree bridge yard barn field town castle
mountain cave market meadow library island playground valley village tower harbour bakery attic cellar orchard museum
station stable cottage waterfall desert swamp canyon lighthouse windmill greenhouse chapel quarry
""")
USES = _words("took lost wanted loved hid held cleaned dropped shook painted fixed carried threw buried wrapped polished")
EATS = _words("ate tasted shared cooked chewed nibbled swallowed devoured")
FOODS = _words("""
bread cake soup fruit milk cheese honey rice pie candy corn jam salad butter pasta juice berries cookies apples eggs
carrots cream tea beans nuts grapes pudding pancakes noodles yogurt cherries toast lemonade pumpkin porridge melon
dumplings mushrooms cinnamon radishes
""")
MEETS = _words("saw met found heard followed chased greeted visited")
ANIMALS = _words("""
bear rabbit fox squirrel lion butterfly turtle monkey bee owl horse sheep wolf pig goat snake elephant deer spider
chicken crab tiger hedgehog whale beaver swan penguin snail otter parrot donkey lizard raccoon dragonfly camel
seal peacock badger walrus ferret pelican lobster gazelle hamster
""")
FEELINGS = _words("""
glad sad tired excited hungry scared proud calm cold angry surprised safe lucky thirsty bored sorry strong worried shy
cheerful jealous sick grateful dizzy hopeful nervous peaceful confused weary thankful restless stubborn
""")

CLASSES: dict[str, list[str]] = {
    "girl name": GIRLS,
    "boy name": BOYS,
    "pet": PETS,
    "thing": THINGS,
    "adjective": ADJECTIVES,
    "move": MOVES,
    "place": PLACES,
    "use": USES,
    "eat": EATS,
    "food": FOODS,
    "meet": MEETS,
    "animal": ANIMALS,
    "feeling": FEELINGS,
}
FUNCTION_WORDS = _words(". once there was a girl boy named she he her his had and to the some felt")
END = "<|endoftext|>"
WORDS = [END, *FUNCTION_WORDS, *(word for words in CLASSES.values() for word in words)]
