"""The words of paligemma-tiny's answers: 42 things and 11 colors, captions in four languages.

A caption counts equal things together: `a cat`, `two apples and a car`. So each language needs the
thing with its article (`eine Katze`), its plural (`Katzen`), the numbers, its "and", and a phrase for
a picture that shows nothing of the 42.

Spanish `y` would become `e` before an i (`padre e hijo`). Here it never does, because after it always
comes an article or a number, and none of these begins with an i.
"""

from dataclasses import dataclass

COLORS = (
    "black", "white", "gray", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown",
)  # fmt: skip

# thing, and in German, Spanish and French: with its article, and the plural
_TABLE = """
cat      | eine Katze / Katzen             | un gato / gatos             | un chat / chats
dog      | ein Hund / Hunde                | un perro / perros           | un chien / chiens
horse    | ein Pferd / Pferde              | un caballo / caballos       | un cheval / chevaux
cow      | eine Kuh / Kühe                 | una vaca / vacas            | une vache / vaches
pig      | ein Schwein / Schweine          | un cerdo / cerdos           | un cochon / cochons
rabbit   | ein Kaninchen / Kaninchen       | un conejo / conejos         | un lapin / lapins
lion     | ein Löwe / Löwen                | un león / leones            | un lion / lions
bear     | ein Bär / Bären                 | un oso / osos               | un ours / ours
elephant | ein Elefant / Elefanten         | un elefante / elefantes     | un éléphant / éléphants
frog     | ein Frosch / Frösche            | una rana / ranas            | une grenouille / grenouilles
bird     | ein Vogel / Vögel               | un pájaro / pájaros         | un oiseau / oiseaux
penguin  | ein Pinguin / Pinguine          | un pingüino / pingüinos     | un pingouin / pingouins
turtle   | eine Schildkröte / Schildkröten | una tortuga / tortugas      | une tortue / tortues
bee      | eine Biene / Bienen             | una abeja / abejas          | une abeille / abeilles
apple    | ein Apfel / Äpfel               | una manzana / manzanas      | une pomme / pommes
banana   | eine Banane / Bananen           | un plátano / plátanos       | une banane / bananes
carrot   | eine Karotte / Karotten         | una zanahoria / zanahorias  | une carotte / carottes
pizza    | eine Pizza / Pizzas             | una pizza / pizzas          | une pizza / pizzas
cake     | ein Kuchen / Kuchen             | un pastel / pasteles        | un gâteau / gâteaux
cup      | eine Tasse / Tassen             | una taza / tazas            | une tasse / tasses
mushroom | ein Pilz / Pilze                | una seta / setas            | un champignon / champignons
car      | ein Auto / Autos                | un coche / coches           | une voiture / voitures
bus      | ein Bus / Busse                 | un autobús / autobuses      | un bus / bus
bicycle  | ein Fahrrad / Fahrräder         | una bicicleta / bicicletas  | un vélo / vélos
airplane | ein Flugzeug / Flugzeuge        | un avión / aviones          | un avion / avions
boat     | ein Boot / Boote                | un barco / barcos           | un bateau / bateaux
rocket   | eine Rakete / Raketen           | un cohete / cohetes         | une fusée / fusées
house    | ein Haus / Häuser               | una casa / casas            | une maison / maisons
tree     | ein Baum / Bäume                | un árbol / árboles          | un arbre / arbres
flower   | eine Blume / Blumen             | una flor / flores           | une fleur / fleurs
ball     | ein Ball / Bälle                | una pelota / pelotas        | une balle / balles
book     | ein Buch / Bücher               | un libro / libros           | un livre / livres
clock    | eine Uhr / Uhren                | un reloj / relojes          | une horloge / horloges
key      | ein Schlüssel / Schlüssel       | una llave / llaves          | une clé / clés
umbrella | ein Regenschirm / Regenschirme  | un paraguas / paraguas      | un parapluie / parapluies
hat      | ein Hut / Hüte                  | un sombrero / sombreros     | un chapeau / chapeaux
guitar   | eine Gitarre / Gitarren         | una guitarra / guitarras    | une guitare / guitares
star     | ein Stern / Sterne              | una estrella / estrellas    | une étoile / étoiles
heart    | ein Herz / Herzen               | un corazón / corazones      | un cœur / cœurs
bell     | eine Glocke / Glocken           | una campana / campanas      | une cloche / cloches
balloon  | ein Ballon / Ballons            | un globo / globos           | un ballon / ballons
gift     | ein Geschenk / Geschenke        | un regalo / regalos         | un cadeau / cadeaux
"""


def plural(word: str) -> str:
    return word + ("es" if word.endswith("s") else "s")


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


@dataclass
class Language:
    nothing: str  # said of a picture with none of the things
    joint: str  # between the last two of a list
    numbers: tuple[str, ...]  # from two on
    nouns: dict[str, tuple[str, str]]  # thing -> with its article, plural

    def counted(self, thing: str, number: int) -> str:
        """'eine Katze', 'zwei Katzen'"""
        one, many = self.nouns[thing]
        return one if number == 1 else f"{self.numbers[number - 2]} {many}"

    def listed(self, phrases: list[str]) -> str:
        """'a, b and c', or that there is nothing."""
        if not phrases:
            return self.nothing
        return self.joint.join(filter(None, [", ".join(phrases[:-1]), phrases[-1]]))


def _nouns(column: int) -> dict[str, tuple[str, str]]:
    rows = [[cell.strip() for cell in line.split("|")] for line in _TABLE.strip().splitlines()]
    return {row[0]: tuple(row[column].split(" / ")) for row in rows}


THINGS = list(_nouns(1))
LANGUAGES = {
    "en": Language(
        "nothing I know",
        " and ",
        ("two", "three", "four", "five", "six"),
        {thing: (f"{article(thing)} {thing}", plural(thing)) for thing in THINGS},
    ),
    "de": Language("nichts, was ich kenne", " und ", ("zwei", "drei", "vier", "fünf", "sechs"), _nouns(1)),
    "es": Language("nada que conozca", " y ", ("dos", "tres", "cuatro", "cinco", "seis"), _nouns(2)),
    "fr": Language("rien que je connaisse", " et ", ("deux", "trois", "quatre", "cinq", "six"), _nouns(3)),
}
NOTHING = LANGUAGES["en"].nothing
