"""How good translations are: chrF against a human translator's, per language."""

import pandas as pd

from competition.errors import CompetitionError


def chrf(translations: list[str], references: list[str]) -> float:
    """chrF (Popović 2015) of all texts together, 0 to 100, as sacrebleu computes it.

    Raises
    ------
    CompetitionError
        sacrebleu is not installed.
    """
    try:
        from sacrebleu import corpus_chrf
    except ImportError as error:
        raise CompetitionError(
            "chrF needs the package sacrebleu", advice="pip install 'relstack[translate]'"
        ) from error
    return float(corpus_chrf(translations, [references]).score)


def quality_table(translated: pd.DataFrame, references: pd.DataFrame) -> pd.DataFrame:
    """Per language: texts that have a reference, chrF of their translations, chrF of the texts as they are.

    A text without a translation counts as it is, because that is what models read then.

    Parameters
    ----------
    translated
        ``language, query, text, query_en``.
    references
        ``language, query, query_en``, see `pipelines.prepare.read_translations`.
    """
    both = translated.merge(references, on=["language", "query"], suffixes=("", "_reference"))
    lines = []
    for language, rows in both.groupby("language", sort=True):
        right = rows["query_en_reference"].tolist()
        read = rows["query_en"].where(rows["query_en"] != "", rows["text"]).tolist()
        lines.append(
            {
                "language": language,
                "references": len(rows),
                "chrf": chrf(read, right),
                "chrf_untranslated": chrf(rows["text"].tolist(), right),
            }
        )
    return pd.DataFrame(lines, columns=["language", "references", "chrf", "chrf_untranslated"])
