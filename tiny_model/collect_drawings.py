"""Collects the drawings of tiny_model/drawings.json and other_drawings.json from npm packages.

    npm install --ignore-scripts --prefix /tmp/icons $(python -m tiny_model.collect_drawings --packages)
    python -m tiny_model.collect_drawings /tmp/icons/node_modules

Nothing is fetched here: the packages, of the versions that drawings.json names or newer ones, lie in the
folder that is given. Sets that are not in SETS stay in drawings.json as they are.

Which icons of a package are taken is told by name: NAMES says what the sets call each of the 42 things,
and each set's patterns which of its versions (line, bold, filled, ...). A name does not say what is to
be seen, so each drawing was looked at; LEFT_OUT has those that show something else, a company's sign, or
too little to be known.
"""

import argparse
import json
import random
import unicodedata
from pathlib import Path

from program.files import replace_file
from tiny_model.scenes import DRAWINGS_FILE, THINGS

OTHERS_FILE = DRAWINGS_FILE.with_name("other_drawings.json")
FONT = "@fontsource/noto-emoji"
MOST = 3  # drawings of a thing in a set
LARGEST = 6000  # characters of a drawing

# What the sets call a thing, the best name first. A number may follow.
NUMBERS = ("", "-1", "-2", "-3", "-01", "-02", "2", "-one", "-alt")
NAMES = {
    "cat":
        "cat animal-cat cat-face pet-animals-cat cat-1 business-lucky-cat business-metaphor-lucky-cat "
        "nature-ecology-cat-head-cat-pet-animals-felyne",
    "dog":
        "dog animal-dog dog-side dog-face sitting-dog dog-1 "
        "nature-ecology-dog-head-dog-pet-animals-canine",
    "horse": "horse horse-head horse-face horse-variant toy-horse",
    "cow": "cow cow-head cow-face animal-cow",
    "pig": "pig animal-pig pig-face pig-head pig-zodiac pet-animals-pig pig-variant",
    "rabbit": "rabbit animal-rabbit rabbit-face rabbit-head bunny rabbit-variant pet-animals-rabbit",
    "lion": "lion lion-face",
    "bear": "bear bear-face bear-head teddy-bear panda polar-bear pet-animals-bear teddy",
    "elephant": "elephant elephant-face elephant-head circus-elephant",
    "frog": "frog frog-face pet-animals-frog pet-animals-frog-face",
    "bird": "bird dove duck crow parrot eagle baby-chick peace-dove",
    "penguin": "penguin",
    "turtle": "turtle animal-turtle tortoise sea-turtle pet-animals-turtle",
    "bee": "bee honeybee",
    "apple": "apple apple-whole apple-fruit food-apple apple-one fruit-apple red-apple green-apple",
    "banana": "banana fruit-banana",
    "carrot": "carrot food-carrot",
    "pizza":
        "pizza pizza-slice food-pizza local-pizza full-pizza food-drink-pizza restaurant-pizza "
        "food-pizza-drink-cook-fast-cooking-nutrition-pizza-food",
    "cake":
        "cake birthday-cake cake-slice cupcake shortcake cake-one cake-three cake-candles food-cake "
        "cake-variant food-drink-desert-cake birthday wedding-cake cake-layered "
        "food-cake-candle-birthday-event-special-sweet-cake-bake",
    "cup":
        "coffee cup tea-cup coffee-cup mug coffee-mug mug-hot cup-hot mug-saucer tea coffee-hot "
        "teacup drink-coffee food-drink-coffee food-drink-tea hot-drink-cup cup-first cup-four "
        "mug-tea",
    "mushroom": "mushroom mushrooms spotted-mushroom video-game-mario-mushroom-1",
    "car":
        "car car-side taxi car-front automobile vehicle-car car-hatchback directions-car car-sport "
        "vehicle-car-profile car-profile police-car car-simple sport-car",
    "bus":
        "bus bus-front bus-side school-bus bus-school bus-one bus-two vehicle-bus directions-bus "
        "tour-bus bus-simple bus-double-decker oncoming-bus bus-articulated-front school-bus-side "
        "travel-transportation-bus-transportation-travel-bus-transit-transport-motorcoach-public",
    "bicycle":
        "bicycle bike bicycle-bike vehicle-bicycle directions-bike pedal-bike transportation-bicycle "
        "fitness-bicycle dutch-bike",
    "airplane":
        "airplane plane airplanemode-active airplane-mode airplane-tilt aeroplane flight airport "
        "transportation-plane commercial-airplane small-airplane airport-plane plane-tilt "
        "airplane-enabled",
    "boat":
        "sailboat boat ship sail-boat sail-ship sailing sailboat-one ferry directions-boat "
        "vehicle-ship sail speed-boat fishing-boat vehicle-boat paper-boat motor-boat cargo-ship "
        "travel-transportation-sail-ship-travel-boat-transportation-transport-ocean-ship-sea-water "
        "business-metaphor-boat-success",
    "rocket": "rocket rocket-launch rocket-one spaceship rocket-takeoff rocket-2 generic-device-rocket",
    "house":
        "home house home-simple home-one home-two home-variant home-alt house-chimney house-door "
        "home-alt1 home-house cottage small-home home-outline buildings-home home-chimney "
        "wooden-house interface-essential-home-1 building-home",
    "tree":
        "tree tree-palm palm-tree pine-tree tree-pine tree-evergreen tree-deciduous evergreen-tree "
        "deciduous-tree christmas-tree coconut-tree tree-one tree-two fruit-tree tree-broadleaved "
        "tree-needleleaved travel-wayfinding-beach-coconut-tree "
        "nature-ecology-tree-2-tree-plant-circle-round-park",
    "flower":
        "flower rose tulip sunflower flower-tulip flower-lotus local-florist flower-rose lotus "
        "potted-flower-tulip potted-flower flower-one lotus-flower daisy flower-pot flower-alt "
        "nature-ecology-rose-flower-rose-plant-tree",
    "ball":
        "ball football basketball volleyball soccer soccer-ball tennis-ball baseball sports-soccer "
        "sports-basketball sports-volleyball sports-baseball beach-ball american-football futbol-ball "
        "football-ball basketball-ball volleyball-ball baseball-ball tennis sport-soccer "
        "sport-basketball",
    "book":
        "book book-open open-book book-closed book-2 book-one menu-book notebook book-opened "
        "book-close book-content book-open-text white-book book-cover auto-stories "
        "content-files-open-book content-files-close-book-bookmark book-close-bookmark "
        "book-book-pages notes-book",
    "clock":
        "clock alarm alarm-clock clock-circle circle-clock schedule clock-alarm time clock-square "
        "time-outline alarm-outline interface-essential-clock alert-alarm-clock time-clock-circle "
        "clock-hour-4",
    "key":
        "key key-one vpn-key old-key key-alt key-variant key-vertical skeleton-key key-skeleton "
        "interface-essential-key key-round",
    "umbrella":
        "umbrella open-umbrella umbrella-one rain-umbrella umbrella-simple weather-umbrella "
        "umbrella-open interface-weather-umbrella-storm-rain-umbrella-open-weather",
    "hat":
        "hat top-hat hat-cowboy cowboy-hat baseball-cap cap tall-hat hat-wizard wizard-hat magic-hat "
        "hat-fedora straw-hat hat-beanie billed-cap hat-top hat-bowler sun-hat hat-baseball "
        "western-hat pointy-hat sorcerer-hat hat-cowboy-side show-hat-magician",
    "guitar":
        "guitar guitar-acoustic guitar-electric modern-music-electric-guitar modern-music-bass-guitar",
    "star": "star star-1 kid-star grade social-rewards-rating-star-1",
    "heart": "heart favorite heart-alt interface-essential-heart-favorite",
    "bell":
        "bell notifications bell-ring bell-ringing bell-simple alarm-bell school-bell ringing-bell "
        "notification-bell alarm-bell-ring alert-alarm-bell ringing-bell-notification",
    "balloon": "balloon party-balloon balloon-one amusement-park-balloon travel-wayfinding-balloon",
    "gift":
        "gift present gift-box wrapped-gift redeem gift-open box-gift gift-2 "
        "social-rewards-reward-gift shopping-shipping-products-gift",
}  # fmt: skip

# Set: package (without @iconify-json/), style, and the patterns of its icons' names: the first that there is
# counts. For the font it is the weight.
SETS = {
    # One line of middling width, as in most sets of icons.
    "tabler": ("tabler", "outlines", "{}"),
    "ph": ("ph", "outlines", "{}"),
    "mingcute": ("mingcute", "outlines", "{}-line"),
    "hugeicons": ("hugeicons", "outlines", "{}"),
    "icon-park-outline": ("icon-park-outline", "outlines", "{}"),
    "iconoir": ("iconoir", "outlines", "{}"),
    "bi": ("bi", "outlines", "{}"),
    "carbon": ("carbon", "outlines", "{}"),
    "material-symbols": ("material-symbols", "outlines", "{}-outline"),
    "ion": ("ion", "outlines", "{}-outline"),
    "la": ("la", "outlines", "{}-solid {}"),
    "bx": ("bx", "outlines", "{}"),
    "akar-icons": ("akar-icons", "outlines", "{}"),
    "ri": ("ri", "outlines", "{}-line"),
    "tdesign": ("tdesign", "outlines", "{}"),
    "mynaui": ("mynaui", "outlines", "{}"),
    "solar": ("solar", "outlines", "{}-linear"),
    "fluent": ("fluent", "outlines", "{}-32-regular {}-28-regular {}-24-regular {}-20-regular"),
    "mdi-outline": ("mdi", "outlines", "{}-outline"),
    "streamline": ("streamline", "outlines", "{}"),
    "streamline-flex": ("streamline-flex", "outlines", "{}"),
    "streamline-sharp": ("streamline-sharp", "outlines", "{}"),
    "majesticons": ("majesticons", "outlines", "{}-line"),
    "proicons": ("proicons", "outlines", "{}"),
    "lineicons": ("lineicons", "outlines", "{}"),
    "gravity-ui": ("gravity-ui", "outlines", "{}"),
    "cil": ("cil", "outlines", "{}"),
    "f7": ("f7", "outlines", "{}"),
    "mage": ("mage", "outlines", "{}"),
    "healthicons": ("healthicons", "outlines", "{}-outline"),
    "basil": ("basil", "outlines", "{}-outline"),
    "heroicons": ("heroicons", "outlines", "{}"),
    "fa7-regular": ("fa7-regular", "outlines", "{}"),
    "lets-icons": ("lets-icons", "outlines", "{}"),
    "eva": ("eva", "outlines", "{}-outline"),
    "teenyicons": ("teenyicons", "outlines", "{}-outline"),
    # Thin ones.
    "ph-thin": ("ph", "outlines thin", "{}-thin"),
    "material-symbols-light": ("material-symbols-light", "outlines thin", "{}-outline"),
    "streamline-ultimate": ("streamline-ultimate", "outlines thin", "{}"),
    "guidance": ("guidance", "outlines thin", "{}"),
    "system-uicons": ("system-uicons", "outlines thin", "{}"),
    "simple-line-icons": ("simple-line-icons", "outlines thin", "{}"),
    "iconamoon-thin": ("iconamoon", "outlines thin", "{}-thin"),
    "lets-icons-light": ("lets-icons", "outlines thin", "{}-light"),
    # Broad ones, of dots too.
    "ph-bold": ("ph", "outlines bold", "{}-bold"),
    "streamline-plump": ("streamline-plump", "outlines bold", "{}"),
    "pepicons-pop": ("pepicons-pop", "outlines bold", "{}"),
    "pixelarticons": ("pixelarticons", "outlines bold", "{}"),
    "streamline-pixel": ("streamline-pixel", "outlines bold", "{}"),
    "fe": ("fe", "outlines bold", "{}"),
    # Drawn by hand, or as if.
    "streamline-freehand": ("streamline-freehand", "hand-drawn", "{}"),
    "streamline-freehand-color": ("streamline-freehand-color", "hand-drawn", "{}"),
    "pepicons-pencil": ("pepicons-pencil", "hand-drawn", "{}"),
    "solar-broken": ("solar", "hand-drawn", "{}-broken"),
    # Filled ones.
    "game-icons": ("game-icons", "silhouettes", "{}"),
    "fa7-solid": ("fa7-solid", "silhouettes", "{}"),
    "tabler-filled": ("tabler", "silhouettes", "{}-filled"),
    "ph-fill": ("ph", "silhouettes", "{}-fill"),
    "mingcute-fill": ("mingcute", "silhouettes", "{}-fill"),
    "icon-park-solid": ("icon-park-solid", "silhouettes", "{}"),
    "fluent-filled": ("fluent", "silhouettes", "{}-32-filled {}-28-filled {}-24-filled {}-20-filled"),
    "bxs": ("bxs", "silhouettes", "{}"),
    "ri-fill": ("ri", "silhouettes", "{}-fill"),
    "material-symbols-filled": ("material-symbols", "silhouettes", "{}"),
    "ion-filled": ("ion", "silhouettes", "{}"),
    "maki": ("maki", "silhouettes", "{}"),
    "temaki": ("temaki", "silhouettes", "{}"),
    "vaadin": ("vaadin", "silhouettes", "{}"),
    "raphael": ("raphael", "silhouettes", "{}"),
    "tdesign-filled": ("tdesign", "silhouettes", "{}-filled"),
    "solar-bold": ("solar", "silhouettes", "{}-bold"),
    "bi-fill": ("bi", "silhouettes", "{}-fill"),
    # Two tones or several colors.
    "icon-park-twotone": ("icon-park-twotone", "icons", "{}"),
    "ph-duotone": ("ph", "icons", "{}-duotone"),
    "solar-bold-duotone": ("solar", "icons", "{}-bold-duotone"),
    "streamline-stickies-color": ("streamline-stickies-color", "icons", "{}"),
    "pepicons-print": ("pepicons-print", "icons", "{}"),
    "duo-icons": ("duo-icons", "icons", "{}"),
    # The font that draws each emoji in one line, in three weights.
    "noto-emoji-font": (FONT, "outlines emoji", "400"),
    "noto-emoji-font-light": (FONT, "outlines emoji", "300"),
    "noto-emoji-font-bold": (FONT, "outlines emoji", "700"),
    # Never trained on.
    "lucide": ("lucide", "outlines held out", "{}"),
    "lucide-lab": ("lucide-lab", "outlines held out", "{}"),
}  # fmt: skip

# Looked at and not taken.
LEFT_OUT = {
    "fluent-emoji-flat": "mirror",
    "fluent-emoji-high-contrast": "mirror",
    "fa7-solid": "tent",
    "tabler": "bike hearts notification umbrella-closed",
    "ph": "notification",
    "mingcute":
        "apple-line clock-2-line clock-line house-2-line house-line love-line notebook-line "
        "schedule-line skateboard-line star-2-line ufo-line",
    "hugeicons":
        "airport apple balloons bike cottage home-01 house-01 house-02 popcorn school-bell-01 "
        "spaceship sunglasses",
    "icon-park-outline":
        "alarm apple bell-ring heart horse-zodiac koala-bear owl rabbit-zodiac rocket schedule "
        "star-one",
    "iconoir": "football hat home-simple",
    "bi": "apple hearts",
    "carbon": "airport-01 airport-02 key soccer tennis tennis-ball",
    "ion": "bicycle-outline",
    "la": "apple book-open",
    "bx": "notification",
    "akar-icons": "book-close schedule",
    "ri": "apple-line bell-line hearts-line rocket-2-line",
    "mynaui": "bike notification",
    "solar":
        "cup-linear hearts-linear home-2-linear home-linear plane-2-linear plane-3-linear "
        "plane-linear star-2-linear",
    "fluent": "building-home-32-regular gift-open-32-regular",
    "mdi-outline": "cup-outline umbrella-closed-outline",
    "streamline": "airplane apple nature-ecology-cat-head-cat-pet-animals-felyne star-2",
    "streamline-flex": "apple school-bus-side",
    "streamline-sharp": "apple car-2 closed-umbrella notebook star-2",
    "proicons": "apple",
    "lineicons": "alarm balloons bike cup",
    "cil": "bike taxi",
    "mage": "apple home home-2 home-3",
    "healthicons": "forest-outline",
    "basil": "apple-outline",
    "lets-icons": "alarm key-alt",
    "eva": "car-outline",
    "teenyicons": "apple-outline",
    "ph-thin": "notification-thin",
    "streamline-ultimate": "airplane-mode amusement-park-balloon fitness-bicycle-1 spaceship",
    "guidance": "alarm-bell bus car home home-2 star taxi time",
    "system-uicons": "notebook notification",
    "lets-icons-light": "alarm-light gift-alt-light key-alt-light",
    "ph-bold": "notification-bold",
    "streamline-plump": "home-1",
    "pixelarticons": "apple dog tree",
    "streamline-pixel": "food-drink-pizza pet-animals-dog travel-wayfinding-balloon",
    "streamline-freehand": "modern-music-bass-guitar notes-book-1 party-balloon show-hat-magician",
    "streamline-freehand-color": "modern-music-bass-guitar notes-book-1 party-balloon show-hat-magician-1",
    "solar-broken":
        "cup-broken hearts-broken home-2-broken home-broken plane-2-broken plane-3-broken "
        "plane-broken star-2-broken",
    "game-icons": "balloons bear-head fountain key magic-hat notebook pig-face spaceship",
    "tabler-filled": "bike-filled",
    "ph-fill": "notification-fill",
    "mingcute-fill":
        "apple-fill clock-2-fill clock-fill cupcake-fill house-2-fill house-fill love-fill "
        "notebook-fill schedule-fill star-2-fill",
    "icon-park-solid":
        "alarm apple basketball-one bell-ring cup-one koala-bear owl rocket schedule soccer-one "
        "sun-hat",
    "fluent-filled": "building-home-32-filled gift-open-32-filled",
    "bxs": "notification",
    "ri-fill": "apple-fill bell-fill hearts-fill rocket-2-fill",
    "material-symbols-filled": "directions-bike",
    "ion-filled": "bicycle",
    "maki": "baseball basketball soccer tennis",
    "temaki": "airport coffee tennis",
    "raphael": "apple",
    "solar-bold":
        "cup-bold hearts-bold home-2-bold home-bold plane-2-bold plane-3-bold plane-bold star-2-bold",
    "icon-park-twotone":
        "alarm apple basketball-one bell-ring cup-one koala-bear owl rocket schedule soccer-one "
        "sun-hat",
    "ph-duotone": "notification-duotone",
    "solar-bold-duotone":
        "cup-bold-duotone hearts-bold-duotone home-2-bold-duotone home-bold-duotone "
        "plane-2-bold-duotone plane-3-bold-duotone plane-bold-duotone star-2-bold-duotone",
    "duo-icons": "apple book-2",
    "lucide": "bike",
    "lucide-lab": "penguin",
}  # fmt: skip

# The drawings' license, where the package names that of the code or an older one.
LICENCES = {"fxemoji": "CC-BY-4.0", "la": "MIT", "vaadin": "CC-BY-4.0"}

# The characters that stand for a thing, the best first.
EMOJI = {
    "cat": "🐱🐈", "dog": "🐶🐕🐩", "horse": "🐴🐎", "cow": "🐮🐄", "pig": "🐷🐖", "rabbit": "🐰🐇",
    "lion": "🦁", "bear": "🐻🐼🧸", "elephant": "🐘", "frog": "🐸", "bird": "🐦🦜🦆🕊",
    "penguin": "🐧", "turtle": "🐢", "bee": "🐝", "apple": "🍎🍏", "banana": "🍌", "carrot": "🥕",
    "pizza": "🍕", "cake": "🎂🍰", "cup": "☕🍵", "mushroom": "🍄", "car": "🚗🚙🚘", "bus": "🚌🚍",
    "bicycle": "🚲", "airplane": "✈🛩", "boat": "⛵🚤🛥", "rocket": "🚀", "house": "🏠🏡",
    "tree": "🌳🌲🌴", "flower": "🌹🌷🌸🌻", "ball": "⚽🏀🏐⚾", "book": "📖📕📓", "clock": "⏰🕒🕰",
    "key": "🔑🗝", "umbrella": "☂☔", "hat": "🎩👒🧢", "guitar": "🎸", "star": "⭐", "heart": "❤",
    "bell": "🔔", "balloon": "🎈", "gift": "🎁",
}  # fmt: skip

# What is none of the 42 things, and nothing that a reader could call one of them.
OTHERS = (
    "fox fox-face tiger tiger-face mouse mouse-face monkey monkey-face gorilla giraffe hedgehog "
    "hippopotamus hippo rhinoceros kangaroo camel llama sloth otter snake lizard crocodile t-rex sauropod "
    "dinosaur whale spouting-whale dolphin fish fish-simple tropical-fish blowfish shark octopus squid "
    "crab lobster shrimp oyster snail butterfly bug ant spider scorpion beetle worm microbe sheep ewe ram "
    "goat squirrel shell jellyfish grapes melon watermelon lemon pineapple strawberry cherries cherry "
    "coconut kiwi-fruit avocado pear eggplant potato hot-pepper pepper cucumber broccoli garlic onion "
    "corn bread croissant baguette-bread baguette pretzel bagel cheese-wedge egg hamburger burger hot-dog "
    "hotdog french-fries taco burrito popcorn doughnut donut cookie chocolate-bar candy lollipop "
    "ice-cream soft-ice-cream honey-pot spaghetti noodles salad sushi wine-glass wine wineglass martini "
    "cocktail-glass baby-bottle bottle milk chair couch sofa armchair bed door window ladder telephone "
    "phone mobile-phone device-mobile smartphone laptop desktop-computer monitor desktop keyboard printer "
    "computer-mouse television tv device-tv radio camera video-camera video film-projector light-bulb "
    "lightbulb lamp flashlight candle scissors pencil pen crayon paintbrush paint-brush brush palette "
    "ruler paperclip hammer axe pick shovel wrench screwdriver nut-and-bolt gear settings saw toolbox "
    "magnet test-tube flask microscope telescope binoculars syringe pill stethoscope thermometer bandage "
    "anchor world-map luggage suitcase handbag backpack briefcase envelope mail mailbox wastebasket trash "
    "shopping-cart cart glasses eyeglasses sunglasses t-shirt shirt jeans pants dress socks sock gloves "
    "scarf coat running-shoe sneaker high-heeled-shoe boot ring gem-stone diamond lipstick comb "
    "toothbrush soap sponge broom basket kite game-die dice chess-pawn puzzle-piece puzzle joystick "
    "video-game gamepad game-controller trumpet saxophone drum accordion piano microphone headphones "
    "headset lock padlock unlock shield sword bomb magnifying-glass magnifier fork-and-knife spoon knife "
    "fork fire-extinguisher plug battery calculator calendar newspaper credit-card money-bag coin coins "
    "wallet chart-increasing hourglass barrel faucet toilet bathtub shower mirror razor fire flame "
    "droplet drop cloud cloud-with-rain rainbow crescent-moon moon high-voltage lightning tornado volcano "
    "mountain mountains tent fountain ferris-wheel roller-coaster moai water-wave wave locomotive "
    "delivery-truck truck motorcycle skateboard roller-skate helicopter flying-saucer ufo traffic-light "
    "vertical-traffic-light stop-sign fuel-pump gas-pump gas-station barrier traffic-cone tractor tank "
    "submarine crane leaf maple-leaf fallen-leaf four-leaf-clover herb sheaf-of-rice ear-of-corn peanuts "
    "chestnut seedling grinning-face crying-face angry-face smiling-face-with-sunglasses winking-face "
    "sleeping-face face-with-tears-of-joy thinking-face nerd-face smiley mood-smile mood-sad ghost alien "
    "robot skull clown-face pile-of-poo poo eyes eye ear nose mouth tongue foot footprints waving-hand "
    "hand thumbs-up victory-hand brain tooth bone lungs baby man woman boy girl person-running runner "
    "person-walking wheelchair ninja princess mermaid fairy vampire zombie genie user users person "
    "musical-note music music-note infinity peace-symbol triangle square hexagon check-mark cross-mark "
    "exclamation-mark question-mark radioactive recycling-symbol wifi bluetooth power-button cursor "
    "arrow-right arrow-up download upload link flag chequered-flag triangular-flag pin pushpin map-pin "
    "bow-and-arrow boomerang fishing-pole ski sled boxing-glove ice-skate ice-hockey badminton dart "
    "lacrosse hockey"
)
# Set: package, patterns, at most so many drawings, each at most so many characters long.
OTHER_SETS = {
    "noto": ("noto", "{}", 110, 3500),
    "noto-v1": ("noto-v1", "{}", 70, 3500),
    "fluent-emoji-flat": ("fluent-emoji-flat", "{}", 130, 2500),
    "emojione": ("emojione", "{}", 110, 2500),
    "streamline-emojis": ("streamline-emojis", "{} {}-1", 50, 4000),
    "fxemoji": ("fxemoji", "{}", 50, 3000),
    "fluent-emoji-high-contrast": ("fluent-emoji-high-contrast", "{}", 70, 2500),
    "game-icons": ("game-icons", "{}", 60, 2500),
    "fa7-solid": ("fa7-solid", "{}", 60, 2500),
    "mdi": ("mdi", "{}", 50, 2500),
    "icon-park": ("icon-park", "{}", 50, 2500),
    "tabler": ("tabler", "{}", 70, 2500),
    "ph": ("ph", "{}", 70, 2500),
    "ph-thin": ("ph", "{}-thin", 40, 2500),
    "ph-duotone": ("ph", "{}-duotone", 40, 2500),
    "mingcute": ("mingcute", "{}-line", 60, 2500),
    "hugeicons": ("hugeicons", "{}", 60, 2500),
    "icon-park-outline": ("icon-park-outline", "{}", 60, 2500),
    "streamline-freehand": ("streamline-freehand", "{} {}-1", 40, 3000),
    "pepicons-pencil": ("pepicons-pencil", "{}", 30, 2500),
    "pixelarticons": ("pixelarticons", "{}", 30, 2500),
    "noto-emoji-font": (FONT, "400", 80, 4000),
    "twemoji": ("twemoji", "{}", 70, 2500),
    "lucide": ("lucide", "{}", 70, 2500),
}  # fmt: skip


# -- Reading the packages -------------------------------------------------------------------------


def read_icons(folder: Path, package: str) -> tuple[dict[str, dict], dict[str, str]]:
    """The icons of @iconify-json/PACKAGE by name, and what is to be said of the set."""
    place = folder / "@iconify-json" / package
    icons, info, about = (
        json.loads((place / name).read_text(encoding="utf-8"))
        for name in ("icons.json", "info.json", "package.json")
    )
    width, height = icons.get("width", 16), icons.get("height", 16)
    found = {
        name: entry(name, icon.get("width", width), icon.get("height", height), icon["body"])
        for name, icon in icons["icons"].items()
        # Some are in a frame that does not begin at 0, and some move.
        if not icon.get("left") and not icon.get("top") and "<animate" not in icon["body"]
    }
    facts = {
        "package": f"@iconify-json/{package}",
        "version": about["version"],
        "licence": LICENCES.get(package, info["license"]["spdx"]),
        "author": info["author"]["name"],
        "url": info["author"].get("url", ""),
    }
    return found, facts


def read_font(folder: Path, weight: str) -> tuple[dict[str, dict], dict[str, str]]:
    """The drawings of one weight of the font Noto Emoji by the names of their characters."""
    from fontTools.pens.svgPathPen import SVGPathPen
    from fontTools.pens.transformPen import TransformPen
    from fontTools.ttLib import TTFont

    found = {}
    for file in sorted((folder / FONT / "files").glob(f"noto-emoji-*-{weight}-normal.woff")):
        font = TTFont(file)
        glyphs, top, bottom = font.getGlyphSet(), font["hhea"].ascent, font["hhea"].descent
        for code, glyph in font.getBestCmap().items():
            pen = SVGPathPen(glyphs, ntos=lambda number: str(round(number)))
            # A font's y points up, and a picture's down.
            glyphs[glyph].draw(TransformPen(pen, (1, 0, 0, -1, 0, top)))
            if path := pen.getCommands():
                name = character_name(chr(code))
                body = f'<path fill="currentColor" d="{path}"/>'
                found[name] = entry(name, round(glyphs[glyph].width), top - bottom, body)
    about = json.loads((folder / FONT / "package.json").read_text(encoding="utf-8"))
    facts = {
        "package": FONT,
        "version": about["version"],
        "licence": "OFL-1.1",
        "author": "Google Inc",
        "url": "https://github.com/googlefonts/noto-emoji",
    }
    return found, facts


def entry(name: str, width: float, height: float, body: str) -> dict:
    return {"name": name, "width": width, "height": height, "body": body}


def character_name(character: str) -> str:
    """'cat-face' for the character CAT FACE."""
    return unicodedata.name(character, f"u{ord(character):x}").lower().replace(" ", "-")


# -- Choosing -------------------------------------------------------------------------------------


def choose_things(icons: dict[str, dict], name: str) -> dict[str, list[dict]]:
    """Of a set of SETS: up to MOST drawings of each thing, different ones, the best name first."""
    package, _, patterns = SETS[name]
    left_out = LEFT_OUT.get(name, "").split()
    chosen = {}
    for thing in THINGS:
        if package == FONT:
            names = [character_name(character) for character in EMOJI[thing]]
        else:
            names = [
                next((icon for p in patterns.split() if (icon := p.format(word + number)) in icons), None)
                for number in NUMBERS
                for word in NAMES[thing].split()
            ]
        found = {}
        for icon in names:
            if icon in icons and icon not in left_out and len(icons[icon]["body"]) <= LARGEST:
                found.setdefault(icons[icon]["body"], icons[icon])
        if found:
            chosen[thing] = list(found.values())[:MOST]
    return chosen


def choose_others(icons: dict[str, dict], name: str) -> dict[str, list[dict]]:
    """Of a set of OTHER_SETS: drawings of what is none of the 42 things, by their names."""
    package, patterns, most, longest = OTHER_SETS[name]
    patterns = "{}" if package == FONT else patterns
    names = (pattern.format(word) for word in OTHERS.split() for pattern in patterns.split())
    left_out = LEFT_OUT.get(name, "").split()
    found = {
        icon: [icons[icon]]
        for icon in names
        if icon in icons and icon not in left_out and len(icons[icon]["body"]) <= longest
    }
    kept = random.Random(0).sample(list(found), min(most, len(found)))
    return {icon: found[icon] for icon in found if icon in kept}


# -- Writing --------------------------------------------------------------------------------------


def as_text(sets: dict[str, dict]) -> str:
    """JSON with a line for each drawing."""

    def compact(value) -> str:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    parts = []
    for name, one_set in sets.items():
        facts = {key: value for key, value in one_set.items() if key != "drawings"}
        drawings = ",\n".join(
            f"{json.dumps(thing)}: [\n" + ",\n".join(map(compact, entries)) + "]"
            for thing, entries in one_set["drawings"].items()
        )
        parts.append(
            f"{json.dumps(name)}: {json.dumps(facts, ensure_ascii=False)[:-1]}, "
            f'"drawings": {{\n{drawings}}}}}'
        )
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="the folder node_modules with the packages")
    parser.add_argument("--packages", action="store_true", help="print the packages that are read")
    args = parser.parse_args()
    packages = {row[0] for row in [*SETS.values(), *OTHER_SETS.values()]}
    packages = sorted(package if package == FONT else f"@iconify-json/{package}" for package in packages)
    if args.packages:
        print(*packages)
        return
    if args.folder is None:
        parser.error("name the folder node_modules, or say --packages")
    if missing := [package for package in packages if not (args.folder / package / "package.json").is_file()]:
        parser.error(f"{args.folder} has no package {missing[0]}; npm installs what --packages prints")

    sets = json.loads(DRAWINGS_FILE.read_text(encoding="utf-8"))
    for name, (package, style, patterns) in SETS.items():
        read = read_font(args.folder, patterns) if package == FONT else read_icons(args.folder, package)
        icons, facts = read
        sets[name] = facts | {"style": style, "drawings": choose_things(icons, name)}
    others = {}
    for name, (package, patterns, _, _) in OTHER_SETS.items():
        read = read_font(args.folder, patterns) if package == FONT else read_icons(args.folder, package)
        icons, facts = read
        style = sets[name].get("style", name)
        others[name] = facts | {"style": style, "drawings": choose_others(icons, name)}
    for file, written in ((DRAWINGS_FILE, sets), (OTHERS_FILE, others)):
        text = as_text(written)
        replace_file(file, text)
        drawings = sum(len(entries) for one in written.values() for entries in one["drawings"].values())
        print(f"{file.name}: {len(written)} sets, {drawings} drawings, {len(text.encode()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
