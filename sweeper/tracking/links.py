"""The addresses under which a study is seen in MLflow, by what is seen there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweeper.home import Home
from sweeper.tracking import charts, confirmations
from sweeper.tracking.address import shown_uri

if TYPE_CHECKING:
    from sweeper.ledger import Ledger


def links_of(ledger: Ledger, name: str, server: str, *, with_table: bool = True) -> dict[str, str]:
    """Those on a server, or within MLflow's own pages if it is empty; none of a study that is not drawn."""
    experiment_id = ledger.study(name).experiment_id
    if experiment_id is None:
        return {}
    best = ledger.best(name, charts.MOST_COMPARED)
    confirmed = confirmations.is_over(ledger.confirmations(name))
    return charts.links(server, experiment_id, best, with_table=with_table, with_finalists=confirmed)


def links_on_server(ledger: Ledger, name: str) -> dict[str, str]:
    """Those on the server of ``MLFLOW_TRACKING_URI``; none where that is no server."""
    uri = Home.from_environment().tracking_uri
    return links_of(ledger, name, shown_uri(uri)) if uri.startswith(("http://", "https://")) else {}
