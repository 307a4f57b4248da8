"""Draw the demonstration dataset: sixty shoes on white, with a table of what each one is."""

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attributes import KINDS, MATERIALS, PALETTE, Colour, Kind, Material
from drawing import draw

COLUMNS = (
    "id",
    "gender",
    "masterCategory",
    "subCategory",
    "articleType",
    "baseColour",
    "season",
    "year",
    "usage",
    "productDisplayName",
)
GENDERS = ("Men", "Women", "Unisex")
SEASONS = ("Summer", "Fall", "Winter", "Spring")
# Most are casual, so that choosing rows by articleType leaves a dataset and takes something away.
ARTICLE_TYPES: dict[Kind, str] = {
    "sneakers": "Casual Shoes",
    "loafers": "Casual Shoes",
    "boots": "Boots",
    "sandals": "Sandals",
    "heels": "Heels",
}
NUM_CASUAL = 48
FIRST_ID = 10_001
SIZE = 256


@dataclass(frozen=True, kw_only=True)
class Shoe:
    """A row of the table, and what is drawn for it."""

    id: int
    kind: Kind
    colour: Colour
    material: Material
    gender: str
    season: str
    year: int

    @property
    def name(self) -> str:
        """As shops name them; every tenth holds a comma that is in no quotes, as such tables do."""
        words = f"{self.colour.title()} {self.material.title()} {self.kind.title()}"
        return f"{words}, {self.season} Collection" if self.id % 10 == 0 else words

    @property
    def row(self) -> str:
        """The line of the table."""
        usage = "Casual" if ARTICLE_TYPES[self.kind] == "Casual Shoes" else "Formal"
        cells = (
            str(self.id),
            self.gender,
            "Footwear",
            "Shoes" if self.kind != "sandals" else "Sandal",
            ARTICLE_TYPES[self.kind],
            self.colour.title(),
            self.season,
            str(self.year),
            usage,
            self.name,
        )
        return ",".join(cells)


def choose_shoes(num_pictures: int, *, seed: int) -> list[Shoe]:
    """Decide what is drawn: colours in turn, so that each is there equally often."""
    rng = random.Random(seed)
    casual = [kind for kind in KINDS if ARTICLE_TYPES[kind] == "Casual Shoes"]
    others = [kind for kind in KINDS if ARTICLE_TYPES[kind] != "Casual Shoes"]
    colours = list(PALETTE)
    shoes = []
    for index in range(num_pictures):
        kinds = casual if index < num_pictures * NUM_CASUAL // 60 else others
        shoes.append(
            Shoe(
                id=FIRST_ID + index,
                kind=kinds[index % len(kinds)],
                colour=colours[index % len(colours)],
                material=rng.choice(MATERIALS),
                gender=rng.choice(GENDERS),
                season=rng.choice(SEASONS),
                year=rng.randint(2019, 2025),
            )
        )
    return shoes


def parse_settings(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line, or the given arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for styles.csv and images/")
    parser.add_argument("--seed", type=int, default=7, help="another seed draws other shoes (default: 7)")
    parser.add_argument("--num-pictures", type=int, default=60, help="how many (default: 60)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the pictures and write the table."""
    settings = parse_settings(arguments)
    images: Path = settings.output / "images"
    images.mkdir(parents=True, exist_ok=True)
    shoes = choose_shoes(settings.num_pictures, seed=settings.seed)
    rng = random.Random(settings.seed + 1)
    for shoe in shoes:
        drawn = draw(
            rng,
            kind=shoe.kind,
            colour=shoe.colour,
            material=shoe.material,
            ground="white",
            centred=True,
            size=SIZE,
        )
        drawn.image.save(images / f"{shoe.id}.jpg", quality=92, subsampling=0)
    lines = [",".join(COLUMNS), *(shoe.row for shoe in shoes)]
    (settings.output / "styles.csv").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    print(f"{len(shoes)} pictures and their table are in {settings.output}")


if __name__ == "__main__":
    main()
