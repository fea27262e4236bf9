"""How near predicted step times are to measured ones, over schemes of some nets.

Each scheme's step is timed by `pock-run bench`, and in other runs recorded kernel by kernel.
Then its time is predicted three times: with nothing measured but the machine's peaks; with the
recording of one other scheme of the net; with its own recording.
"""

from __future__ import annotations

import json
import math
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from statistics import fmean

import numpy as np
import torch

from pockc import driver
from pockc.backends.tvm import cache, targets
from pockc.errors import Problem, UserError
from pockc.frontend.captured import Captured
from pockc.frontend.loading import UserModel
from pockc.profile import lower_quartile
from pockc.profile.record import program_here
from pockc.scheme import Config
from pockc.search.kernel_model import Basis, KernelModel, Timed, fitted
from pockc.search.kernel_times import KernelTimes
from pockc.search.machines import Peaks, last_cache_bytes
from pockc.search.measuring import steady_profile
from pockc.search.prediction import StepTime, step_time
from pockc.search.rates import USUAL, Rates
from pockc.search.times_file import Measured, add_times, of_profile, read_times
from tests.bench.cases import WORKLOADS, Workload
from tests.bench.nets import make_net
from tests.bench.peers import SCRATCH
from tests.bench.report import Grid
from tests.bench.values import initial_values, load_values, make_batch

NETS: dict[str, Workload] = {
    "mobilenet": WORKLOADS["W1"],
    "efficientnet": WORKLOADS["efficientnet"],
    "minilm": WORKLOADS["minilm"],
    "tiny": WORKLOADS["W5"],
}
"""What predictions are compared on."""
RATE_NETS: dict[str, Workload] = {
    "resnet18": WORKLOADS["resnet18"],
    "resnet50": WORKLOADS["resnet50"].resized(batch=2, resolution=160),
    "distilbert": WORKLOADS["distilbert"].resized(batch=4, sequence=64),
    "llama": WORKLOADS["llama"].resized(layers=4),
    "tiny-batch8": WORKLOADS["W5"].resized(batch=8),
    "mobilenet-160": WORKLOADS["W1"].resized(batch=1, resolution=160),
}
"""What usual rates (`pockc.search.rates`) are fitted to."""
SCHEMES = ("full", "bias", "head", "last:2", "last:4", "pockengine")
ROUNDS, SECONDS = 3, 0.7
_KEY = "this machine"


@dataclass
class Scheme:
    """A scheme of a net, with what was measured of it.

    Attributes:
        net: A key of `NETS`.
        preset: What is trained.
        measured_ms: Medians of whole steps, one a round.
        recorded: What a recording tells of its kernels.
    """

    net: str
    preset: str
    measured_ms: list[float] = field(default_factory=list)
    recorded: Measured = field(default_factory=Measured)

    @property
    def folder(self) -> Path:
        """Where its artifact and measurements lie, which hold for this compiler only."""
        name = f"{self.net}-{self.preset.replace(':', '')}-{cache.version()[:8]}"
        return SCRATCH / "step-times" / name

    @property
    def step_ms(self) -> float:
        """The median step of the fastest round."""
        return min(self.measured_ms)


class Net:
    """A captured net and its schemes."""

    def __init__(self, name: str, threads: int) -> None:
        """Capture a net of `NETS` or `RATE_NETS`."""
        self.name, self.options = name, driver.Options(threads=threads)
        self.workload = {**NETS, **RATE_NETS}[name]
        self.captured = self._capture()
        self.schemes = [Scheme(name, preset) for preset in SCHEMES]

    def _capture(self) -> Captured:
        net = make_net(self.workload)
        load_values(net, initial_values(net))
        inputs, _ = make_batch(self.workload)
        user = UserModel(net, (torch.from_numpy(inputs),))
        return driver.capture_model(user, self.config(SCHEMES[0]), self.options)

    def config(self, preset: str) -> Config:
        """Return what trains a scheme."""
        optimizer = "sgd" if self.name in RATE_NETS else "adamw"
        return driver.read_config({"preset": preset}, {"optimizer": {"name": optimizer}})

    def planned(self, scheme: Scheme) -> driver.Planned:
        """Return the plan of a scheme."""
        return driver.plan_captured(self.captured, self.config(scheme.preset), self.options)

    def build(self, scheme: Scheme) -> None:
        """Compile a scheme, unless that was done."""
        path = scheme.folder / "model.pock"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            config = self.config(scheme.preset)
            driver.build_captured(self.captured, config, path, self.options)


def measure(schemes: Sequence[Scheme], threads: int) -> Iterator[Scheme]:
    """Time and record schemes in turn, and keep the results of each one's fastest round.

    A virtual machine may have half of its speed for a while: see the README beside this.

    Yields:
        Each scheme when its turn of a round is over.
    """
    fastest: dict[Path, float] = {}
    for scheme in schemes:
        scheme.measured_ms.clear()
    for _ in range(ROUNDS):
        for scheme in schemes:
            path = scheme.folder / "model.pock"
            profile = steady_profile(path, threads)
            step_ms = lower_quartile(profile.step_ms)
            if step_ms < fastest.get(path, math.inf):
                fastest[path] = step_ms
                (scheme.folder / "kernels.json").unlink(missing_ok=True)
                add_times(scheme.folder / "kernels.json", _KEY, of_profile(profile))
            scheme.measured_ms.append(_bench(path, threads))
            text = json.dumps(scheme.measured_ms)
            (scheme.folder / "steps.json").write_text(text, encoding="utf-8")
            yield scheme


def _bench(path: Path, threads: int) -> float:
    """Return the median of steps that nobody records."""
    ms, steps = 0.0, 4
    for _ in range(2):
        command = [program_here(path), "bench", path, "--threads", threads, "--steps", steps]
        words = [str(word) for word in (*command, "--json", "--no-verify")]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        ms = float(json.loads(done.stdout.splitlines()[-1])["median_ms"])
        steps = max(10, min(200, int(SECONDS * 1e3 / ms)))
    return ms


def read(scheme: Scheme) -> None:
    """Take what was measured of a scheme."""
    scheme.measured_ms = json.loads((scheme.folder / "steps.json").read_text(encoding="utf-8"))
    scheme.recorded = read_times(scheme.folder / "kernels.json", _KEY)


@dataclass(frozen=True)
class Prediction:
    """A scheme's predicted times.

    Attributes:
        scheme: Which.
        unmeasured: From the machine's peaks alone.
        calibrated: From the recording of another scheme, by that scheme's name.
        measured: From its own recording.
    """

    scheme: Scheme
    unmeasured: StepTime
    calibrated: dict[str, StepTime]
    measured: StepTime

    def error(self, time: StepTime) -> float:
        """Return how much too long (or, below 0, short) a predicted time is, as a share."""
        return time.ms / self.scheme.step_ms - 1

    @property
    def worst(self) -> str:
        """The scheme whose recording alone tells this one's time worst."""
        return max(self.calibrated, key=lambda n: abs(self.error(self.calibrated[n])))


def predictions(net: Net) -> Iterator[Prediction]:
    """Yield the predictions of a net's schemes."""
    target, threads = targets.get("host"), net.options.threads or 1
    peaks = [s.recorded.peaks for s in net.schemes if s.recorded.peaks is not None]
    best = max(peaks, key=lambda p: p.gflops)

    def times(recorded: Measured) -> KernelTimes:
        known = Measured(peaks=best)
        known.add(recorded)
        return KernelTimes(target, threads, known)

    known = {s.preset: times(s.recorded) for s in net.schemes}
    nothing = times(Measured())
    for scheme in net.schemes:
        planned = net.planned(scheme)
        by_scheme = {n: step_time(planned, t) for n, t in known.items()}
        own = by_scheme.pop(scheme.preset)
        yield Prediction(scheme, step_time(planned, nothing), by_scheme, own)


COLUMNS = (
    "net", "scheme", "measured ms", "nothing measured", "error", "one other measured",
    "error", "worst other", "error", "all measured", "error",
)  # fmt: skip
CALIBRATION = ("last:2", "last:4")
"""The scheme whose recording calibrates the others, and the one that calibrates that one."""


def row(found: Prediction) -> tuple[str, ...]:
    """Return a line of the table."""
    scheme = found.scheme
    one = CALIBRATION[scheme.preset == CALIBRATION[0]]
    cells = [scheme.net, scheme.preset, f"{scheme.step_ms:.3g}"]
    for time in (found.unmeasured, found.calibrated[one]):
        cells += [_told(time), f"{100 * found.error(time):+.0f} %"]
    worst = found.calibrated[found.worst]
    cells += [found.worst, f"{100 * found.error(worst):+.0f} %"]
    return (*cells, _told(found.measured), f"{100 * found.error(found.measured):+.0f} %")


def _told(time: StepTime) -> str:
    return f"{time.ms:.3g} ({100 * time.share(Basis.MEASURED):.0f} % measured)"


def grid(nets: Sequence[Net]) -> Grid:
    """Return the table of what was measured before."""
    for net in nets:
        for scheme in net.schemes:
            read(scheme)
    rows = [row(found) for net in nets for found in predictions(net)]
    return Grid("Predicted and measured steps", COLUMNS, rows, names=2)


def chosen(names: Sequence[str] | None, known: Mapping[str, Workload]) -> list[str]:
    """Return the nets of these names, all that are known for none.

    Raises:
        UserError: [net] There is no such net.
    """
    if unknown := [n for n in names or () if n not in known]:
        what = f"there is no net {', '.join(unknown)}"
        raise UserError(Problem("net", what, fix=f"choose from: {', '.join(known)}"))
    return list(names or known)


def usual_rates(nets: Sequence[Net]) -> dict[str, Rates]:
    """Return what kinds of kernels reach in nets that were measured before.

    A kernel counts once for each net, with the mean of its times in the net's schemes.
    """
    kinds: dict[str, list[Timed]] = defaultdict(list)
    peaks = Peaks(0.0, 0.0)
    for net in nets:
        found: dict[str, list[Timed]] = defaultdict(list)
        for scheme in net.schemes:
            read(scheme)
            peaks = peaks.or_better(scheme.recorded.peaks or peaks)
            for symbol, timed in scheme.recorded.kernels.items():
                found[symbol].append(timed)
        for same in found.values():
            kinds[same[0].work.kind].append(Timed(fmean(t.ms for t in same), same[0].work))
    model = KernelModel(peaks, last_cache_bytes(targets.get("host")), ())
    usual = np.array(astuple(USUAL))
    rates = {}
    for kind, some in sorted(kinds.items()):
        terms = np.array([model.terms(t.work) for t in some]) * usual
        factors = fitted(terms, np.array([t.ms for t in some]), WEAK_PULL)
        rates[kind] = Rates(*(round(float(r), 2) for r in factors * usual))
    return rates


WEAK_PULL = 0.02
"""So that `USUAL` decides only what these kernels do not tell."""
