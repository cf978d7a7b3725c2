"""The figures of a study, as Plotly's own objects: each says in its title what it shows.

    figure(read_results(ledger, "sst2"), "front").show()

The modules beside this one build them as plain dictionaries. This is the only file that imports Plotly, and
only when something is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from sweeper.errors import UsageError
from sweeper.figures import finalists, front, progress, space
from sweeper.results import Results

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

FIGURES: Mapping[str, Callable[[Results], dict[str, Any]]] = {
    "front": front.front,
    "parallel": space.parallel,
    "importance": space.importance,
    "slices": space.slices,
    "curves": progress.curves,
    "timeline": progress.timeline,
    "finalists": finalists.finalists,
}
"""What draws each figure, by its name, in the order in which a report shows them."""


def figure(results: Results, name: str) -> Figure:
    """One figure of a study.

    Raises:
        UsageError: there is no figure of that name; the message has those that there are.
    """
    return as_plotly(described(results, name))


def described(results: Results, name: str) -> dict[str, Any]:
    """The same as a plain dictionary of ``data`` and ``layout``. Raises UsageError as ``figure`` does."""
    if name not in FIGURES:
        near = get_close_matches(str(name), FIGURES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"there is no figure {name!r}.{hint} There are: {', '.join(FIGURES)}")
    return FIGURES[name](results)


def as_plotly(description: Mapping[str, Any]) -> Figure:
    """The figure that a dictionary describes, checked by Plotly."""
    from plotly.graph_objects import Figure

    return Figure(dict(description))


def to_json(description: Mapping[str, Any]) -> str:
    """The same as JSON for a page, checked by Plotly."""
    return str(as_plotly(description).to_json())


def plotly_script() -> str:
    """Plotly's own program, for pages that need no network."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())
