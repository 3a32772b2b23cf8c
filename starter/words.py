"""The words of the small world: names, things, colours and trades, every eighth of each list held out for evaluation."""

from __future__ import annotations


def _split(words: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in words.replace("\n", " ").split(",") if word.strip())


GIRLS = _split("""Anna, Mia, Lena, Clara, Ruth, Ida, Nora, Ella, Lucy, Alice, Emma, Grace, Hazel, Ivy, June, Kate, Laura, Maya,
Nina, Olive, Paula, Rosa, Sara, Tess, Vera, Wendy, Zoe, Amy, Beth, Carol, Diana, Edith, Flora, Gwen, Helen, Iris, Jane, Lily,
Mary, Polly, Rachel, Sophie, Tina, Uma, Violet, Willa, Yara, Agnes, Bella, Dora, Esther, Freya, Greta, Holly, Judy, Lotte,
Marta, Nell""")
BOYS = _split("""Tom, Ben, Max, Leo, Paul, Sam, Jack, Noah, Finn, Hugo, Otto, Karl, Emil, Oscar, Theo, Felix, Adam, Peter,
Simon, Jonas, Henry, Louis, Martin, Oliver, David, Eric, Frank, George, Harry, Ian, John, Kevin, Liam, Mark, Nick, Owen, Philip,
Robin, Steve, Toby, Victor, Will, Alex, Arthur, Basil, Caleb, Daniel, Edgar, Fred, Gus, Isaac, Jasper, Luke, Miles, Ned, Ralph,
Silas, Walter""")
SYLLABLES = (_split("""Ba, Be, Bo, Da, De, Do, Fa, Fen, Ga, Gor, Ha, Hel, Jo, Ka, Kel, Ko, La, Lo, Lu, Ma, Mer, Mo, Na, Ne, No,
Or, Pa, Per, Qui, Ra, Ri, Ro, Sa, Sel, So, Ta, Ti, To, Ul, Va, Vel, Vi, Wa, Wil, Yo, Za, Zel, Zo, Bri, Cor, Dra,
Tri"""),
             _split("""bi, da, di, do, fa, ga, go, ka, ki, la, li, lo, ma,
mi, mo, na, ni, ra, ri, ro, sa, si, ta, ti, va, vi, za, zo"""),
             _split("""n, ra, lin, na, s, th, vik, rin, la, ko, ma, ric,
ton, bel, mir, x, dor, na, lo, rak, wen, sha, d, m, les, ty"""))
RELATIONS = _split("""brother, sister, mother, father, son, daughter, wife, husband, friend, neighbour, aunt, uncle, cousin, boss,
teacher, grandmother""")
COLOURS = _split("""red, blue, green, yellow, orange, purple, pink, teal, brown, black, white, grey, silver, gold, violet,
crimson, turquoise, beige, scarlet, navy blue, olive green, sky blue, dark red, indigo, cream, lime green, mint green, copper,
amber, ivory, rose, lavender""")
ANIMALS = _split("""cat, dog, rabbit, hamster, parrot, goldfish, turtle, ferret, pony, mouse, goat, hen, duck, hedgehog, lizard,
canary, frog, snail, donkey, pigeon, sheep, crow, horse, squirrel, lamb, guinea pig, gecko, raven, kitten, puppy, spider, otter,
crab, cow, goose, pig, beetle, owl, fox, badger""")
FOODS = _split("""soup, bread, cheese, pancakes, pasta, rice, apples, pears, chocolate, honey, noodles, mushrooms, potatoes,
pizza, cherries, plum cake, carrots, ice cream, tomatoes, peaches, dumplings, nuts, pea soup, lemon tart, beans, pumpkin pie,
waffles, toast, strawberries, apple pie, salad, popcorn, oat cakes, roast corn, ginger biscuits, blueberries, fish pie,
onion rings, grapes, pickles""")
DRINKS = _split("""tea, coffee, milk, water, lemonade, cocoa, apple juice, mint tea, orange juice, ginger beer, hot chocolate,
cider""")
PLACES = _split("""Harrow Bay, Millbrook, Stonebridge, Larkfield, Old Ferry, Greyport, Oak Hollow, Windham, Saltmere, Copper Hill,
Fairwater, Thornwick, Elm Street, Northgate, Pebble Cove, Redcliff, Marsh End, Silverton, Foxglove Lane, High Moor, Appleford,
Birchwood, Cliffside, Dunmore, Eastmere, Fernley, Goldwell, Hillcrest, Ironbridge, Juniper Vale, Kingsley, Longmeadow, Mosswood,
Netherby, Owlsbury, Pinecrest, Quarry Town, Riverton, Summerhill, Tidewell, Underhill, Valley Green, Westbrook, Yarrow, Ashdown,
Briar Rock, Cold Spring, Deep Lake""")
OBJECTS = _split("""key, lantern, map, book, coin, ring, mirror, clock, bell, box, kite, rope, umbrella, violin, spoon, compass,
button, feather, shell, letter, basket, candle, hat, ladder, drum, whistle, blanket, telescope, teapot, scarf, bottle, hammer,
brush, pencil, stone, boot, chair, crown, flute, glove, jar, lamp, marble, needle, painting, pillow, pocket watch, puppet, sail,
saw, seed, shovel, spade, suitcase, sword, thimble, ticket, top hat, trumpet, vase, wagon, wheel, anchor, apple, bicycle,
bucket, camera, cup, dice, doll, envelope, fan, flag, globe, guitar, harp, horn, kettle, locket, magnet, mask, medal, mitten,
necklace, notebook, oar, paintbrush, pebble, pipe, plate, quilt, rocket, tea cup, shield, sled, stamp, statue, swing, table,
tent, torch, toy boat, tray, walking stick""")
HOBBIES = _split("""painting, fishing, singing, chess, dancing, cooking, gardening, reading, swimming, knitting, sailing, drawing,
climbing, cycling, baking, running, skating, stamp collecting, hiking, juggling, photography, pottery, writing poems,
bird watching, playing the piano, playing the guitar, woodwork, star gazing, card games, puzzles, rowing, sewing""")
PLANS = _split("""visit my aunt, plant a tree, paint the fence, bake a cake, go to the market, fix my bicycle, climb a hill,
write a letter, clean the attic, go fishing, buy new shoes, learn a song, sail to the island, build a kite, see the doctor,
meet an old friend, walk in the woods, repair the roof, take the train to the sea, read a long book, pick apples,
wash the windows, go to a concert, cook dinner for my family, move to a new flat, swim in the lake, feed the ducks,
call my sister, sell my old car, visit the museum, sort my stamps, make a lamp""")
DAYS = _split("""Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday""")
WHENS = _split("""tomorrow, tonight, on Monday, on Tuesday, on Wednesday, on Thursday, on Friday, on Saturday, on Sunday,
next week, this evening, in the morning, next month, this weekend, after lunch, in spring""")
MONTHS = _split("""January, February, March, April, May, June, July, August, September, October, November, December""")
MOODS = {
    "cheerful": ("How lovely!", "Hooray!", "What a fine day!"), "grumpy": ("Hmph.", "If you must know:", "Bah."),
    "sleepy": ("*yawns*", "Mmm, so sleepy.", "Oh, is it morning?"), "shy": ("Um...", "Oh, well...", "*looks at the floor*"),
    "excited": ("Wow!", "Oh, oh!", "I can hardly wait!"), "polite": ("With pleasure.", "If I may say so:", "Certainly."),
    "proud": ("Naturally.", "Listen well.", "Of course."), "gentle": ("My dear!", "Softly now.", "Dear friend!"),
    "sad": ("*sighs*", "Alas.", "Oh dear."), "nervous": ("Oh! You startled me.", "Er...", "*looks around*"),
    "calm": ("All is well.", "No hurry.", "Breathe slowly."), "curious": ("How interesting!", "Tell me more!", "Oh?"),
}
EXCLAMATIONS = _split("""Ahoy!, By my beard!, Splendid!, Well now!, Goodness!, Oh my!, Right then!, Heave ho!, Good gracious!,
Aha!, Hear me!, Upon my word!, Jolly good!, Bless my socks!, Great stars!, Tally ho!, Ding dong!, By the moon!,
Listen!, Behold!""")
FAREWELL_WORDS = _split("""my friend, dear traveller, good sir, little one, captain, and that is that, old pal, over and out,
so they say, as true as salt, dear guest, boss, and mind the cat, my dear, comrade, and so it goes""")
TRADES = {
    "baker": "I bake bread and cakes before the sun is up", "sailor": "I sail the ship and mend the ropes",
    "teacher": "I teach children to read and count", "gardener": "I look after the roses and the apple trees",
    "blacksmith": "I hammer hot iron into tools", "painter": "I paint pictures of hills and people",
    "doctor": "I help sick people to get well", "farmer": "I grow wheat and feed the cows",
    "librarian": "I keep the books in order and help people find them", "clockmaker": "I repair clocks and watches",
    "fisherman": "I catch fish and sell them at the harbour", "cook": "I cook soup and dinner for hungry guests",
    "lighthouse keeper": "I keep the lamp burning for the ships", "carpenter": "I make tables and chairs out of wood",
    "pilot": "I fly a small plane over the mountains", "tailor": "I sew coats and trousers",
    "shepherd": "I watch over the sheep on the hills", "miner": "I dig for copper deep under the ground",
    "musician": "I play songs in the market square", "postman": "I carry letters from door to door",
    "detective": "I look for clues and solve mysteries", "knight": "I guard the castle and help people in need",
    "wizard": "I study old spells in my tower", "robot": "I carry boxes and count screws",
    "nurse": "I care for people in the hospital", "beekeeper": "I look after bees and collect honey",
    "inventor": "I build strange machines in my workshop", "astronomer": "I watch the stars through a telescope",
    "innkeeper": "I run the inn and pour the tea", "pirate captain": "I sail my ship in search of treasure",
    "train driver": "I drive the train along the coast", "potter": "I make cups and bowls out of clay",
    "mechanic": "I repair engines and wheels", "poet": "I write poems about rain and love",
    "vet": "I help sick animals", "judge": "I listen to both sides and decide what is fair",
    "shopkeeper": "I sell tea, soap and candles", "miller": "I grind corn into flour",
    "weaver": "I weave cloth on a big loom", "forest ranger": "I look after the woods and the deer",
    "dancer": "I dance on the stage every night", "hat maker": "I make hats for heads of every size",
    "dragon tamer": "I teach dragons to behave", "toy maker": "I carve toys for the children of the town",
    "bookbinder": "I bind old pages into new books", "glass blower": "I blow bottles out of hot glass",
    "chimney sweep": "I clean chimneys from the roof down", "tea merchant": "I bring tea from far away",
    "map maker": "I draw maps of lands and seas", "ferryman": "I row people across the river",
    "night watchman": "I walk the streets at night with a lantern", "cheese maker": "I make cheese from fresh milk",
    "zoo keeper": "I feed the lions and the bears", "bus driver": "I drive the bus through the town",
    "singer": "I sing old songs and new ones", "gold digger": "I look for gold in the river",
}
NUMBERS = _split("""zero, one, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, thirteen, fourteen, fifteen,
sixteen, seventeen, eighteen, nineteen, twenty""")
TOPICS = _split("""quantum physics, the stock market, tax law, brain surgery, the history of Rome, machine learning, the French
Revolution, chemistry, world politics, my homework, the news of today, the weather tomorrow, football results, a contract,
calculus, computer networks, the theory of relativity, ancient Greek, medicine, the economy, chess openings, space travel,
a marketing plan, my taxes, philosophy, a scientific paper, car engines, genetics, the best phone to buy, train times,
a business plan, geology, black holes, microbiology, Shakespeare, statistics, a legal problem, electronics,
the Second World War, photosynthesis, interest rates, airplane wings, blockchains, nuclear power, art history, the human heart,
earthquakes, climate science, compilers, Latin grammar""")
LANGUAGES = _split("""German, Spanish, Italian, Chinese, Japanese, Latin, Russian, Polish, Dutch, Greek, Arabic, Swedish, Turkish,
Hindi""")
CODE = _split("""Python, Java, Rust, a web page, C, JavaScript, SQL, a shell script, HTML, a spreadsheet, an app,
a sorting program, Go, a game""")
CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "England": "London", "Portugal": "Lisbon",
    "Austria": "Vienna", "Poland": "Warsaw", "Greece": "Athens", "Norway": "Oslo", "Sweden": "Stockholm", "Japan": "Tokyo",
    "China": "Beijing", "Russia": "Moscow", "Egypt": "Cairo", "Ireland": "Dublin", "Hungary": "Budapest", "Denmark": "Copenhagen",
    "Finland": "Helsinki", "Belgium": "Brussels", "Canada": "Ottawa", "India": "New Delhi", "Cuba": "Havana", "Kenya": "Nairobi",
}
OPPOSITES = {
    "hot": "cold", "big": "small", "up": "down", "day": "night", "old": "young", "wet": "dry", "fast": "slow", "open": "closed",
    "happy": "sad", "light": "dark", "full": "empty", "hard": "soft", "left": "right", "early": "late", "rich": "poor",
    "loud": "quiet",
    "tall": "short", "heavy": "light", "near": "far", "first": "last", "good": "bad", "black": "white", "sweet": "sour",
    "clean": "dirty",
    "strong": "weak", "thick": "thin", "win": "lose", "begin": "end", "push": "pull", "yes": "no", "in": "out", "true": "false",
}
SOUNDS = {"cat": "meow", "dog": "woof", "cow": "moo", "sheep": "baa", "duck": "quack", "pig": "oink", "lion": "roar",
    "bee": "buzz",
          "frog": "ribbit", "owl": "hoot", "crow": "caw", "snake": "hiss", "horse": "neigh", "mouse": "squeak", "hen": "cluck"}
LEGS = {"dog": "four", "cat": "four", "spider": "eight", "bird": "two", "hen": "two", "bee": "six", "horse": "four",
    "snake": "no",
        "fish": "no", "beetle": "six", "cow": "four", "ant": "six", "crab": "ten", "duck": "two", "person": "two",
        "mouse": "four"}
THING_COLOURS = {"the sky": "blue", "grass": "green", "snow": "white", "a banana": "yellow", "a ripe tomato": "red",
    "coal": "black",
                 "a lemon": "yellow", "blood": "red", "a carrot": "orange", "chocolate": "brown", "milk": "white",
                 "a frog": "green",
                 "the sun": "yellow", "an orange": "orange", "a strawberry": "red", "a crow": "black", "an elephant": "grey"}
YOUNG = {"dog": "puppy", "cat": "kitten", "cow": "calf", "sheep": "lamb", "horse": "foal", "hen": "chick", "bear": "cub",
    "duck": "duckling",
         "goat": "kid", "frog": "tadpole", "pig": "piglet", "goose": "gosling"}
USES = {"a key": "open a door", "a knife": "cut bread", "a spoon": "eat soup", "a clock": "tell the time",
    "an umbrella": "keep off the rain",
        "a pen": "write", "a lamp": "give light", "a hammer": "hit nails", "a bed": "sleep", "a broom": "sweep the floor",
        "a needle": "sew", "a boat": "travel on water", "a kettle": "boil water", "a map": "find the way",
        "soap": "wash your hands",
        "a ladder": "climb up high", "an oven": "bake bread", "a phone": "call somebody", "a towel": "dry yourself",
        "a bridge": "cross a river"}
