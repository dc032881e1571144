"""The vocabulary of the tiny benchmark's invented English: plain word lists by part of speech.

Nouns and verbs are regular, so that plurals and past tenses follow by rule. The lists are in descending
frequency: `language.py` gives the n-th word of a list a weight of about 1 / (n + 30).
"""

NOUNS = """
day house hand door night water road room table window tree garden river letter lamp street town
boat field morning evening stone wall kitchen market bridge storm harbour winter summer shop book page picture
clock chair coat basket bottle candle carpet castle cellar chapel corner cottage curtain desert dream drum
engine farm feather fence fire flag flower forest fountain gate ghost glove hammer hill horse hotel island
jacket journey kettle kitten ladder lake lantern lesson lighthouse lock machine map meadow mill mirror monkey
mountain museum needle neighbour nest ocean orchard oven owl palace paper path pencil piano pillow pipe planet
plate pocket pond porch port pot potato prison rabbit railway ribbon ring robin roof root rope rose sail
saddle school seed shadow ship shoe shoulder signal song spoon spring stable staircase star station steamer
stool storey stove string summit sweater temple tent theatre thread throne ticket tiger toad tower treasure
trumpet tunnel turnip umbrella valley village violin wagon wheel whistle willow wing wonder yard almond anchor
apple apron arrow autumn balcony ballad barn barrel beach bear bell bird blanket bowl branch brick broom
bucket button cabin camel canal cannon captive carrot cart cave chain chimney circle cloud coin comet cradle
crown cup desk diamond doll donkey dragon drawer duck eagle egg envelope evergreen eye finger flute fog
glacier goat guitar hat hawk heron ice inn jar jewel key kite knot lemon lily lion meteor mitten moth oak
onion parcel parrot peach pearl pebble pepper pigeon plum poem pump puppet quilt raven ruler scarf shell
shield sparrow spider squirrel statue stream swallow sword thimble thorn thunder torch trout turtle vase veil
vine wave whale windmill wolf wreath
""".split()

VERBS = """
look walk open close turn wait ask call carry help start stop follow pass reach remember watch answer point
touch wander whisper climb cross cover count cook clean dance dream drop empty enter fail fear fill finish fix
float fold frown gather glance greet guard hammer happen hope hurry hunt invite join jump kick knock land
laugh lean learn lift linger listen lock long march marvel mend mention milk move murmur notice number obey
offer order pack paint park pause peer pick plant play polish pour praise pray press print promise pull push
question race rain raise recall repair repeat reply rest return reveal roar rub sail salute scatter search sew
shelter shiver shout sigh signal smile sniff soak sort splash stack stare stay stitch stray study stumble
supply suppose surround talk taste thank trace trade travel treasure tremble trust tumble unlock vanish visit
warm warn wash wave weigh whistle wish wonder work worry wrap yawn
""".split()

ADJECTIVES = """
old little great small long quiet white black young cold dark warm green red blue bright empty heavy early
late gentle golden silver narrow wide broken hollow distant silent sudden strange simple secret sharp shallow
soft slow rusty round rough rich pale plain polite proud ancient amber angry anxious bare bitter bold brave
brief broad brown busy calm careful cheap cheerful clear clever clumsy common crooked cruel curious damp dear
deep delicate double dry dull dusty eager eastern elder elegant endless faint fair faithful familiar famous
fancy fearless fierce final fine firm flat foggy foreign fragile free fresh frosty frozen full funny generous
grand grateful grave gray greedy handsome handy happy harsh hidden high honest humble hungry idle innocent
iron jolly kind lazy light lively lonely loud low lucky merry mild misty modest muddy neat noble noisy
northern odd patient peaceful perfect pleasant poor private pure quick ragged rare ready remote restless rocky
royal sacred sad salty serious shabby shady shiny short sleepy slender smooth solemn southern splendid steady
steep stern still stormy stout sunny sweet swift tall tame tender thick thin thirsty tidy tiny tired twisted
useful vast velvet weary western wicked wild wise wooden worn
""".split()

ADVERBS = """
again slowly quietly together away soon often never always suddenly almost perhaps gently twice later upstairs
downstairs everywhere somewhere nearby forward backward homeward alone anyway barely boldly bravely briefly
brightly calmly carefully cheerfully clearly closely coldly deeply eagerly easily finally firmly freely gladly
happily hardly kindly lately lightly loudly neatly nervously patiently politely proudly quickly rarely sadly
safely seldom silently simply sleepily softly steadily sweetly swiftly warmly wearily
""".split()

PREPOSITIONS = """
in of to on at from under over near behind through across along between beyond into around above
against before without toward below past until despite after with by upon inside outside beneath beside
""".split()
CONJUNCTIONS = "and but while because so when though or as if where since unless once yet".split()

TITLES = """
captain doctor aunt professor sergeant madam baron nurse father brother bishop uncle sister teacher tailor
weaver farmer fisher hunter dancer cook artist poet pilot pirate merchant miller shepherd sailor soldier
singer waiter widow wizard judge king queen prince emperor traveller stranger visitor friend cousin guest
orphan thief giant keeper baker butcher carpenter mason porter clerk mayor gardener printer barber painter
""".split()

FIRST_NAMES = """
Ada Alden Alma Anton Arlo Basil Bela Bram Cara Cedric Clara Cora Cyril Dora Edith Edgar Elias Elsa Emil Enid
Ezra Fabian Felix Flora Frida Gideon Greta Gustav Hazel Hector Helga Hugo Ida Igor Ines Iris Ivo Jasper Joan
Jonas Julia Karl Keir Lara Leo Lena Linus Lotte Lucas Mabel Magnus Marta Milo Mina Mira Nadia Nils Nora Olga
Olive Orrin Oscar Otto Paula Pavel Petra Quinn Ralf Rhea Rosa Rufus Ruth Sasha Selma Silas Simon Sofia Sven
Tara Theo Tilda Tobias Ulla Una Vera Viktor Viola Wanda Willa Xenia Yara Yuri Zelda Zora
""".split()

SURNAMES = """
Abbot Archer Ashby Baines Barlow Beck Birch Blake Boone Brandt Briggs Calder Carver Chase Clay Cobb Colby
Crane Crosby Dale Darrow Dixon Drake Dunn Ellery Emery Farrow Finch Fisk Flint Foley Frost Gale Garner Gibbs
Grady Granger Hale Harlow Hobbs Holt Hurst Ingram Jarvis Keane Kemp Kirby Lang Larkin Locke Lowe Maddox Marsh
Mercer Moss Nash Norris Oakes Paley Parish Pike Platt Pruitt Quill Ramsey Reeve Rhodes Rowe Sable Shaw Slade
Stark Sutton Tate Thorne Tripp Tyler Vance Wade Walden Webb Wren Yates York
""".split()


_PLURALS = {"potato": "potatoes", "scarf": "scarves", "wolf": "wolves"}


def plural(noun: str) -> str:
    if noun in _PLURALS:
        return _PLURALS[noun]
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def past(verb: str) -> str:
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ied"
    short = len(verb) <= 4 and verb[-1] in "pbtgn" and verb[-2] in "aiou" and verb[-3] not in "aeiou"
    return verb + verb[-1] + "ed" if short else verb + "ed"
