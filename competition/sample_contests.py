"""Made-up files of other contests, in their exact formats: Amazon ESCI, Home Depot, WDC product matching.

The shop is that of `competition.sample`; what is relevant follows from the same rules, and a known share of labels is
wrong. The formats are told in the files of ``competition/contests``, with where they were read.
"""

import csv
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from competition.errors import CompetitionError, Fault
from competition.lexicon import read_lexicon
from competition.shop import Dice, Pair, Shop

FLIP_RATE = 0.05
POSITIVE_RATE = 0.6
LOCALES = {"en": "us", "es": "es", "ja": "jp"}
GRADES = {True: ("2.5", "2.67", "3", "3"), False: ("1", "1.33", "1.67", "2", "2.33")}
"""Means of three raters' 1, 2 and 3, or of two; relevant from 2.5 on."""

Sizes = Mapping[str, int]
Files = dict[str, bytes]


def write_contest_sample(contest: str, folder: Path, *, n_train: int, n_test: int, seed: int = 0) -> list[Path]:
    """The files of a made-up contest, all of them new; equal arguments give equal bytes.

    Raises
    ------
    CompetitionError
        There is no such sample, a number is out of range, or a file of that name exists; nothing is written then.
    """
    if contest not in SAMPLES:
        advice = f"there are samples of {', '.join(SAMPLES)}"
        raise CompetitionError(f"no sample of a competition {contest!r} can be made", advice=advice)
    faults = [Fault(name, str(n), "10 or more") for name, n in (("n_train", n_train), ("n_test", n_test)) if n < 10]
    if faults:
        raise CompetitionError("the sample cannot be written", faults=faults, advice="ask for more rows")
    files = SAMPLES[contest]({"train": n_train, "test": n_test}, seed)
    there = [
        Fault(str(folder / name), "there is a file already", "another folder")
        for name in files
        if (folder / name).exists()
    ]
    if there:
        raise CompetitionError("the sample cannot be written", faults=there, advice="name an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".sample-", dir=folder) as draft:
        for name, data in files.items():
            (Path(draft) / name).write_bytes(data)
        for name in files:
            (Path(draft) / name).replace(folder / name)
    return [folder / name for name in files]


def _labelled(pairs: Iterable[Pair], dice: Dice) -> Iterator[tuple[Pair, bool]]:
    """The pairs with their labels, some of which are wrong."""
    for pair in pairs:
        yield pair, pair.clean_label != dice.chance(FLIP_RATE)


def _pairs(split: str, n_rows: int, seed: int, languages: Sequence[str]) -> tuple[Iterator[tuple[Pair, bool]], Dice]:
    dice = Dice(seed, 100 + ("train", "test").index(split))
    pairs = Shop(read_lexicon(), dice).pairs("QI", languages, POSITIVE_RATE)
    return _labelled(islice(pairs, n_rows), dice), dice


def _table(records: Sequence[Mapping[str, object]]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([dict(record) for record in records]), sink)
    return bytes(sink.getvalue().to_pybytes())


# Amazon ESCI


def _esci(sizes: Sizes, seed: int) -> Files:
    """One file of examples for both splits, and one of products that a product's locale is part of the key of."""
    examples: list[dict[str, object]] = []
    products: dict[tuple[str, str], dict[str, object]] = {}
    query_ids: dict[tuple[str, str], int] = {}
    for split, n_rows in sizes.items():
        rows, dice = _pairs(split, n_rows, seed, tuple(LOCALES))
        for pair, label in rows:
            locale = LOCALES[pair.language]
            product = products.setdefault((pair.target, locale), _product(pair.target, locale, len(products), dice))
            examples.append(
                {
                    "example_id": len(examples),
                    "query": pair.query,
                    "query_id": query_ids.setdefault((pair.query, locale), len(query_ids)),
                    "product_id": product["product_id"],
                    "product_locale": locale,
                    "esci_label": dice.pick("EEES" if label else "CII"),
                    "small_version": int(dice.chance(0.9)),
                    "large_version": 1,
                    "split": split,
                }
            )
    return {
        "shopping_queries_dataset_examples.parquet": _table(examples),
        "shopping_queries_dataset_products.parquet": _table(list(products.values())),
    }


def _product(title: str, locale: str, number: int, dice: Dice) -> dict[str, object]:
    return {
        "product_id": f"B{number:09d}",
        "product_title": title,
        "product_description": f"<p>{title}</p>" if dice.chance(0.5) else None,
        "product_bullet_point": title if dice.chance(0.8) else None,
        "product_brand": title.split()[0] if dice.chance(0.9) else None,
        "product_color": None,
        "product_locale": locale,
    }


# Home Depot


def _home_depot(sizes: Sizes, seed: int) -> Files:
    """CSV files in Latin-1 but for the descriptions, and the sample of a submission."""
    products: dict[str, int] = {}
    lines: dict[str, list[list[object]]] = {}
    row_id = 1
    for split, n_rows in sizes.items():
        rows, dice = _pairs(split, n_rows, seed, ("en",))
        lines[split] = []
        for pair, label in rows:
            row_id += 1 + dice.below(3)  # ids have gaps
            title = f"{pair.target} {2 + dice.below(9)} in. × 1°"  # signs that make it Latin-1
            uid = products.setdefault(title, 100_001 + len(products))
            grade = [dice.pick(GRADES[label])] if split == "train" else []
            lines[split].append([row_id, uid, title, pair.query, *grade])
    header = ["id", "product_uid", "product_title", "search_term"]
    descriptions = [[uid, f"About this: {title}"] for title, uid in products.items()]
    return {
        "train.csv": _csv([*header, "relevance"], lines["train"], "latin-1"),
        "test.csv": _csv(header, lines["test"], "latin-1"),
        "product_descriptions.csv": _csv(["product_uid", "product_description"], descriptions, "utf-8"),
        "sample_submission.csv": _csv(["id", "relevance"], [[line[0], 1] for line in lines["test"]], "utf-8"),
    }


def _csv(header: Sequence[str], lines: Iterable[Sequence[object]], encoding: str) -> bytes:
    from io import StringIO

    text = StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    table.writerows(lines)
    return text.getvalue().encode(encoding)


# Product matching


def _wdc(sizes: Sizes, seed: int) -> Files:
    """JSON Lines of pairs of offers; a matching pair is of one cluster."""
    return {f"{split}.json": b"".join(_offers(split, n_rows, seed)) for split, n_rows in sizes.items()}


def _offers(split: str, n_rows: int, seed: int) -> Iterator[bytes]:
    dice = Dice(seed, 200 + ("train", "test").index(split))
    shop = Shop(read_lexicon(), dice)
    places = {product.path: place for place, product in enumerate(shop.products)}
    for number in range(n_rows):
        wish = shop.listing(dice.pick(shop.products), {"brand": 0.8, "code": 0.5}, usual=0.5)
        is_match = dice.chance(POSITIVE_RATE)
        cluster = places[wish.concept.path]
        left = {"title": shop.worded(wish, "en"), "cluster_id": cluster}
        right = {"title": shop.title(wish, is_match, language="en"), "cluster_id": cluster + (not is_match) * 10_000}
        ids = [dice.below(10**7) * 100 + number % 100 for _ in range(2)]
        sides = {
            **_side("left", ids[0], left),
            **_side("right", ids[1], right),
        }
        pair = {"pair_id": f"{ids[0]}#{ids[1]}", "label": int(is_match != dice.chance(FLIP_RATE))}
        yield orjson.dumps({**pair, **sides}) + b"\n"


def _side(side: str, offer: int, known: Mapping[str, Any]) -> dict[str, object]:
    further = ("brand", "description", "price", "specTableContent")
    fields = {"id": offer, "category": "Other", **known, **dict.fromkeys(further)}
    return {f"{name}_{side}": value for name, value in fields.items()}


SAMPLES: dict[str, Callable[[Sizes, int], Files]] = {
    "amazon-esci": _esci,
    "home-depot": _home_depot,
    "wdc-products": _wdc,
}
"""Contest -> what makes its files."""
