"""What a model's training leaves beside it: settings, command, digests, versions and log of every run, and its curves as a picture.

`train` writes `training.json` into the run folder, `export` carries it into the model folder, `lastresort card` draws `curves.svg` from it.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from lastresort.config import read_yaml
from lastresort.errors import ConfigError

CONFIG, RUN, TRAINING, CURVES = "config.yaml", "run.json", "training.json", "curves.svg"
ABSOLUTE = re.compile(r"(?<![\w.:/\\~-])(?:/|[A-Za-z]:[\\/])[^\s,;'\"()\[\]{}]+")
MOST_POINTS = 300
"""Points of a line; a longer log is averaged down to so many."""
DRAWN = ("harm", "self_harm_risk", "persistence", "redirection")
"""Labels that get a line of their own beside the mean, where a run has them."""


def portable(value: Any) -> Any:
    """Plain data without this machine's folders.

    A path below the working folder is made relative to it; of any other absolute path the last part stays.
    """
    if isinstance(value, Mapping):
        return {key: portable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [portable(item) for item in value]
    if not isinstance(value, str):
        return value
    name, sign, text = value.rpartition("=")  # an override: key=value
    if PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute():
        return name + sign + _short(text)
    return ABSOLUTE.sub(lambda found: _short(found[0]), value)


def _short(path: str) -> str:
    if Path(path).is_absolute() and Path(path).is_relative_to(Path.cwd()):
        return Path(path).relative_to(Path.cwd()).as_posix()
    return PureWindowsPath(path).name  # splits at both kinds of slash


def command_line(arguments: Sequence[str], processes: int) -> str:
    """The documented command for a run of so many processes; `arguments` are what stood after `lastresort train`."""
    launcher = f"accelerate launch --multi_gpu --num_processes {processes} -m " if processes > 1 else ""
    return launcher + "lastresort train " + shlex.join(map(str, portable(list(arguments))))


def soup_line(runs: Sequence[Path], output: Path, shares: Sequence[float]) -> str:
    """The command that averages these runs."""
    words = [*map(str, runs), *(part for share in shares for part in ("--share", f"{share:g}")), "-o", str(output)]
    return "lastresort soup " + shlex.join(map(str, portable(words)))


def runs_of(run: Path, command: str | None = None) -> list[dict[str, Any]]:
    """One entry a run, earliest first: those that a finished run started from, then itself.

    Args:
        run: folder with `config.yaml` and `run.json`.
        command: that made it; None where nobody noted it.

    Raises:
        ConfigError: no finished run there.
    """
    if not (run / RUN).is_file():
        raise ConfigError(f"{run}: found no {RUN}, expected a finished training run")
    settings = read_yaml(run / CONFIG)
    record = json.loads((run / RUN).read_text(encoding="utf-8"))
    start = (settings.get("model") or {}).get("start")
    entry = {"name": run.name, "command": command, "settings": settings, **record}
    return [*_before(run, start), _rounded(portable(entry))]


def _before(run: Path, start: str | None) -> list[dict[str, Any]]:
    """The runs behind `model.start`; of one that is gone, the name."""
    if start is None:
        return []
    for folder in (Path(start), run.parent / Path(start).name):
        if (folder / TRAINING).is_file() or (folder / RUN).is_file():
            return read_runs(folder)
    return [{"name": Path(start).name, "command": None, "history": []}]


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """The entries in a run's or model's `training.json`; of a run that was made before there was such a file, from `run.json`. Raises `ConfigError`."""
    path = folder / TRAINING
    if not path.is_file():
        return runs_of(folder)
    runs = json.loads(path.read_text(encoding="utf-8")).get("runs")
    if not isinstance(runs, list) or not runs:
        raise ConfigError(f"{path}: found no runs, expected at least one")
    return runs


def write_runs(runs: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Writes `training.json`."""
    (folder / TRAINING).write_text(json.dumps({"runs": runs}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")


def _rounded(value: Any) -> Any:
    """Six digits of every number."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _laid_out(runs: Sequence[Mapping[str, Any]]) -> Iterator[tuple[float, Mapping[str, Any]]]:
    """(step counted over all runs, log entry), and as an entry the name of each run that begins; a run's steps may start again within it (refit)."""
    offset = last = 0.0
    for run in runs:
        previous = 0.0
        if run["history"]:
            yield offset, {"name": run["name"]}
        for entry in run["history"]:
            if entry["step"] < previous:
                offset = last
            previous = entry["step"]
            last = offset + previous
            yield last, entry
        offset = last


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means of neighbours, so that at most `MOST_POINTS` are left."""
    size = -(-len(points) // MOST_POINTS) or 1
    chunks = [points[place : place + size] for place in range(0, len(points), size)]
    return [(sum(x for x, _ in chunk) / len(chunk), sum(y for _, y in chunk) / len(chunk)) for chunk in chunks]


def draw_curves(runs: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Draws loss (training and validation) and validation average precision over the steps of all runs, as SVG; the same runs give the same bytes.

    Returns:
        Whether there was anything to draw; if not, no file is written.

    Raises:
        ModuleNotFoundError: no matplotlib.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    entries = list(_laid_out(runs))
    if not entries:
        return False
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasSVG(figure)
    upper, lower = figure.subplots(2, 1, sharex=True)

    def line(axes: Any, key: str, label: str, **style: Any) -> None:
        points = [(step, entry[key]) for step, entry in entries if key in entry]
        if points:
            axes.plot(*zip(*_thinned(points), strict=True), label=label, **style)

    line(upper, "loss", "training", linewidth=0.8)
    line(upper, "eval_loss", "validation", marker="o", markersize=3)
    line(lower, "eval_macro_ap", "mean of all labels", marker="o", markersize=3, color="black", linewidth=2)
    for label in DRAWN:
        line(lower, f"eval_ap_{label}", label, marker=".", markersize=3, linewidth=0.8)
    for begin, name in ((step, entry["name"]) for step, entry in entries if "name" in entry):
        for axes in (upper, lower):
            axes.axvline(begin, color="grey", linewidth=0.6, linestyle="--")
        upper.annotate(name, (begin, 1), xycoords=("data", "axes fraction"), xytext=(2, -8), textcoords="offset points", fontsize=7, color="grey")
    upper.set_ylabel("loss")
    lower.set_ylabel("average precision")
    lower.set_xlabel("step")
    for axes in (upper, lower):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7)
    with mpl.rc_context({"svg.hashsalt": CURVES, "svg.fonttype": "none"}):
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    return True
