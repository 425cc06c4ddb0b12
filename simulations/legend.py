"""Legends of tables: what each column is, and what it can be."""

from collections.abc import Mapping

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

RANGES: Mapping[str, str] = {
    "test_error": "at least 0, less is better",
    "gain": "0 as with an untrained gate, 1 as with the planted one; may be below and above",
    "cv": "0 even, sqrt(N/K - 1) when all tokens take the same K of N experts",
    "cv_floor": "before it, start: mean hard CV of the untrained gate",
    "collision_information": "0, the same probabilities for all tokens, to ln N",
    "information": "0, experts say nothing of labels, to 1, as much as they can",
    "effective_groups": "1 to M",
    "validation_loss": "ln of the vocabulary for a guess, less is better",
    "perplexity": "1 to the vocabulary for a guess",
    "drop_rate": "0 to 1",
}
"""Of measurements that tables show."""


def print_legend(columns: Mapping[str, str], descriptions: Mapping[str, str], console: Console) -> None:
    """A line for each of the columns, by the name of its measurement: heading, description, range."""
    for name, heading in columns.items():
        said = descriptions.get(name, "")
        text = Text.assemble((heading, "bold"), f": {said}" + f"; {RANGES[name]}" * (name in RANGES))
        console.print(Padding(text, (0, 0, 0, 1)), highlight=False)
