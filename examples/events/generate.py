"""Writes the sample beside this file: customers of a shop that does not exist, and what they looked for and bought.

    python examples/events/generate.py

Everything is drawn at random from the lists below; no line is about anybody. The same seed gives the same files.
"""

from __future__ import annotations

import csv
import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

FOLDER = Path(__file__).parent
CUSTOMERS = 500
LABELLED = 300
SEED = 17
START = datetime(2025, 1, 1, tzinfo=UTC)
DAYS = 90
KINDS = ("Viewed", "Searched", "Cart")
ABOUT = 0.7
"""Share of a customer's events that say something about household or home."""
CONSENT = 0.92

THINGS = {
    # attribute, tag: things in English and in Persian
    ("household", "single"): (
        ["soup for one", "small rice cooker", "travel kettle", "single duvet", "one-person tent"],
        ["سوپ تک‌نفره", "پلوپز کوچک", "کتری مسافرتی", "لحاف یک‌نفره", "چادر یک‌نفره"],
    ),
    ("household", "family"): (
        ["picture book", "school bag", "bunk bed", "family board game", "lunch boxes"],
        ["کتاب کودک", "کیف مدرسه", "تخت دوطبقه", "بازی خانوادگی", "ظرف غذای بچه‌ها"],
    ),
    ("home", "flat"): (
        ["balcony planter", "folding table", "indoor drying rack", "wall shelf", "slim wardrobe"],
        ["گلدان بالکن", "میز تاشو", "بند رخت آپارتمانی", "قفسه دیواری", "کمد باریک"],
    ),
    ("home", "house"): (
        ["lawn mower", "hedge shears", "garden hose", "rain barrel", "outdoor lamp"],
        ["چمن‌زن", "قیچی باغبانی", "شلنگ آب حیاط", "بشکه آب باران", "چراغ حیاط"],
    ),
    ("", ""): (
        ["batteries", "notebook", "coffee ☕", "light bulb", "phone case", "umbrella", "scissors", "tea"],
        ["باتری", "دفتر", "قهوه ☕", "لامپ", "قاب گوشی", "چتر", "قیچی", "چای"],
    ),
}
ATTRIBUTES = {"household": ("single", "family"), "home": ("flat", "house")}


def make_customers(chance: random.Random) -> list[dict[str, str]]:
    """One row a customer; what is inferred stands in it under the attributes' names."""
    return [
        {
            "customer": str(1000 + number),
            "agreed": str(chance.random() < CONSENT).lower(),
            "language": chance.choice(("en", "fa")),
            "plan": chance.choice(("basic", "basic", "plus", "")),
            "age": str(chance.randint(18, 80)) if chance.random() < 0.6 else "",
            **{name: chance.choice(tags) for name, tags in ATTRIBUTES.items()},
        }
        for number in range(CUSTOMERS)
    ]


def make_events(chance: random.Random, customer: dict[str, str]) -> list[tuple[str, str, str, str]]:
    """Rows of one customer: most about themselves, some about nothing, a few about others."""
    events = []
    for _ in range(1 + min(int(chance.expovariate(1 / 3)), 9)):
        about = ("", "")
        if chance.random() < ABOUT:
            name = chance.choice(list(ATTRIBUTES))
            about = (name, customer[name] if chance.random() < 0.8 else chance.choice(ATTRIBUTES[name]))
        thing = chance.choice(THINGS[about][customer["language"] == "fa"])
        moment = START + timedelta(seconds=chance.randrange(DAYS * 86_400))
        events.append((customer["customer"], moment.strftime("%Y-%m-%d %H:%M:%SZ"), chance.choice(KINDS), thing))
    return events


def write(name: str, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """A CSV file."""
    with (FOLDER / name).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def main() -> None:
    """Writes all files."""
    chance = random.Random(SEED)
    customers = make_customers(chance)
    events = [event for customer in customers for event in make_events(chance, customer)]
    write("events.csv", ("customer", "at", "event", "title"), sorted(events, key=lambda event: event[1]))
    known = ("customer", "agreed", "language", "plan", "age")
    write("customers.csv", known, [tuple(customer[name] for name in known) for customer in customers])
    truth = [(customer["customer"], *(customer[name] for name in ATTRIBUTES)) for customer in customers[:LABELLED]]
    write("labels.csv", ("customer", *ATTRIBUTES), truth)
    entries = {
        thing: {name: {tag: 1.5}} for (name, tag), languages in THINGS.items() if name for things in languages
        for thing in things
    }  # fmt: skip
    lexicon = json.dumps({"match": "phrase", "entries": entries}, ensure_ascii=False, indent=1)
    (FOLDER / "lexicon.json").write_text(lexicon + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
