"""Values that show themselves: one line in a terminal, tables in a notebook."""

import html

import pandas as pd


class Tables(dict[str, pd.DataFrame]):
    """Title -> table."""

    def __repr__(self) -> str:
        return f"<{len(self)} tables: {'; '.join(self)}>" if self else "<no tables>"

    def _repr_html_(self) -> str:
        return "".join(
            f"<h4>{html.escape(title)}</h4>{table.to_html(index=False, na_rep='')}" for title, table in self.items()
        )
