"""What searches reach against what they cost, as a picture: a panel for each number of trials at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.common import three_quartiles


def draw(
    path: Path,
    results: Mapping[tuple[str, int], list[list[float]]],
    parallel: Sequence[int],
    label: str,
    logarithmic: bool,
) -> None:
    """Median over the seeds in hundredths, and the quartiles around it in a lighter tone.

    Args:
        results: by search and number at once: a curve a seed, a value for each training's cost.
        label: of the vertical axis, which is ``logarithmic`` above half a hundredth, or linear.
    """
    import matplotlib

    matplotlib.use("Agg")
    # Without it, the same figures would be another file each time.
    matplotlib.rcParams["svg.hashsalt"] = "search"
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(
        1, len(parallel), figsize=(4.2 * len(parallel), 3.6), sharey=True, squeeze=False
    )
    for panel, count in zip(panels[0], parallel, strict=True):
        for name in dict.fromkeys(name for name, _ in results):
            curves = results[name, count]
            quartiles = [
                [100 * value for value in three_quartiles(values)] for values in zip(*curves, strict=True)
            ]
            cost = range(1, len(quartiles) + 1)
            (line,) = panel.plot(cost, [middle for _, middle, _ in quartiles], label=name, linewidth=1.4)
            low, high = [one for one, _, _ in quartiles], [one for _, _, one in quartiles]
            panel.fill_between(cost, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
        panel.set_title(f"{count} at once")
        panel.set_xlabel("cost in trainings to the end")
        if logarithmic:
            panel.set_yscale("symlog", linthresh=0.5)
    panels[0][0].set_ylabel(label)
    panels[0][-1].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)
