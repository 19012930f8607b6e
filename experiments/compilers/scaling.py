"""Scaling: what pools send between devices whose shares are rows of the images.

Each pool is compiled for 1 to 8 simulated devices, for values and for gradients; its
collectives are read from the program, and what it computes is compared with one device.
Three ways: `jit` of a sharded array, `halo_exchange` and a local pool in `shard_map`,
and `jit` of plain `lax.reduce_window` with its own gradient.
"""

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxpool
from experiments.shared import figures, report

SHAPE = (2, 256, 32, 8)
DEVICES = (1, 2, 4, 8)
KINDS = ("max", "sum")
PASSES = ("value", "gradient")
WAYS = ("jit", "halo", "lax")
DRAWN = ("3/2", "5/1")  # windows and strides
LOOKS = {
    "jit": ("jaxpool, jit", figures.BLUE, "o", 6),
    "halo": ("jaxpool, halo_exchange", figures.GREEN, "s", 11),
    "lax": ("lax, jit", figures.VERMILLION, "^", 7),
}
# A program's collectives do not depend on how well its kernels are compiled.
QUICKLY = {"xla_backend_optimization_level": 0}
BITS = re.compile(r"(\d+)$")
COLLECTIVE = re.compile(
    r"= (?P<dtype>[a-z]+\d*)\[(?P<dims>[\d,]*)\]\S* "
    r"(?P<name>all-[a-z-]+?|collective-[a-z-]+?|reduce-scatter|ragged-all-to-all)"
    r"(?:-start)?\((?P<rest>.*)"
)
GROUP = re.compile(
    r"replica_groups=(?:\[\d+,(?P<size>\d+)\]|\{\{(?P<one>[\d,]+)\}|mesh\[[^=]*=(?P<all>\d+)\])"
)
UNIT = "pools"


class Geometry(NamedTuple):
    """A window over rows and columns, padded as "SAME"."""

    window: int
    stride: int
    dilation: int = 1
    implementation: str | None = None

    @property
    def label(self) -> str:
        """How the tables name it."""
        dilated = f" dilated {self.dilation}" if self.dilation > 1 else ""
        named = f" {self.implementation}" if self.implementation else ""
        return f"{self.window}/{self.stride}{dilated}{named}"

    @property
    def halo(self) -> int:
        """Rows of its neighbours that a shard reads."""
        return max(0, (self.window - 1) * self.dilation + 1 - self.stride)

    def pool(self, kind: str, padding: str) -> Callable[..., jax.Array]:
        """The pool of the library."""
        pool = getattr(jaxpool, f"{kind}_pool")
        axes = {"strides": self.stride, "dilation": self.dilation, "padding": padding}
        window = (self.window, self.window)
        return partial(pool, window=window, implementation=self.implementation, **axes)


GEOMETRIES = (
    Geometry(2, 2),
    Geometry(3, 2),
    Geometry(3, 1),
    Geometry(5, 1),
    Geometry(5, 2),
    Geometry(3, 1, 2),
    Geometry(15, 1),
    Geometry(15, 1, 1, "slices"),
)


class Row(NamedTuple):
    """What one program sends, for each device, and how far off its result is."""

    kind: str
    window: str
    devices: int
    way: str
    passes: str
    collectives: Mapping[str, int]
    received: int
    error: float

    @property
    def is_wrong(self) -> bool:
        """Whether the result differs from that of one device."""
        return not self.error <= 1e-4  # NaN is wrong


def ticks(job: report.Job) -> int:
    """One tick per pool and number of devices."""
    return len(KINDS) * len(GEOMETRIES) * len(_devices(job))


def _devices(job: report.Job) -> tuple[int, ...]:
    return DEVICES[-1:] if job.quick else DEVICES


def run(job: report.Job) -> report.Finding:
    """Compile every pool for every number of devices."""
    jax.config.update("jax_num_cpu_devices", max(DEVICES))
    rows: list[Row] = []
    for kind in KINDS:
        for geometry in GEOMETRIES:
            for devices in _devices(job):
                job.say(f"scaling: {kind} {geometry.label} on {devices}")
                rows += measure(kind, geometry, devices)
                job.tick()
    return report.Finding(
        results=[row._asdict() for row in rows],
        tables=[_table(rows, passes) for passes in PASSES],
        conclusion=_conclude(rows),
        files=[_draw(job, rows)],
    )


def measure(kind: str, geometry: Geometry, devices: int) -> Iterator[Row]:
    """The programs of one pool on some devices."""
    mesh = jax.make_mesh((devices,), ("h",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, P(None, "h"))
    whole = geometry.pool(kind, "SAME")
    rng = np.random.default_rng(0)
    x = rng.permutation(math.prod(SHAPE)).reshape(SHAPE).astype(np.float32)
    g = rng.integers(-8, 9, jax.eval_shape(whole, x).shape).astype(np.float32)
    for way in WAYS:
        pool = _pool(way, kind, geometry, mesh)
        for passes in PASSES if pool else ():
            wanted = np.asarray(_jitted(whole, passes)(x, g))
            arrays = jax.device_put((x, g), rows)
            compiled = _jitted(pool, passes).lower(*arrays).compile()
            got = np.asarray(compiled(*arrays))
            error = np.max(np.abs(got - wanted)) / np.max(np.abs(wanted))
            sent = dict(_collectives(compiled.as_text()))
            counts = {name: len(sizes) for name, sizes in sent.items()}
            received = sum(map(sum, sent.values()))
            label = kind, geometry.label, devices, way, passes
            yield Row(*label, counts, received, float(error))


def _jitted(pool: Callable[..., Any], passes: str) -> Any:
    def value(x: jax.Array, g: jax.Array) -> jax.Array:
        return pool(x)

    def gradient(x: jax.Array, g: jax.Array) -> jax.Array:
        return jax.vjp(pool, x)[1](g)[0]

    chosen = {"value": value, "gradient": gradient}[passes]
    return jax.jit(chosen, compiler_options=QUICKLY)


def _pool(
    way: str, kind: str, geometry: Geometry, mesh: jax.sharding.Mesh
) -> Callable[[jax.Array], jax.Array] | None:
    """The pool of a sharded array in one of the ways, if it has this pool."""
    if way == "jit":
        return geometry.pool(kind, "SAME")
    if way == "halo":
        return _by_halo(kind, geometry, mesh)
    if geometry.implementation or geometry.dilation > 1:  # max has no gradient then
        return None
    return partial(_by_lax, kind, geometry)


def _by_halo(
    kind: str, geometry: Geometry, mesh: jax.sharding.Mesh
) -> Callable[[jax.Array], jax.Array]:
    """Exchange rows, then pool what is there."""

    def local(x: jax.Array) -> jax.Array:
        x, inside = jaxpool.halo_exchange(
            x,
            (geometry.window, geometry.window),
            geometry.stride,
            "SAME",
            dilation=geometry.dilation,
            axis_names=("h", None),
        )
        return geometry.pool(kind, "VALID")(x, where=inside)

    rows = P(None, "h")
    return jax.shard_map(local, mesh=mesh, in_specs=rows, out_specs=rows)


def _by_lax(kind: str, geometry: Geometry, x: jax.Array) -> jax.Array:
    """The same with `lax.reduce_window`, as Flax has it."""
    box = (1, geometry.window, geometry.window, 1), (1, *[geometry.stride] * 2, 1)
    fill, op = {"max": (-np.inf, lax.max), "sum": (0.0, lax.add)}[kind]
    return lax.reduce_window(x, fill, op, *box, "SAME")


def _collectives(text: str) -> dict[str, list[int]]:
    """The bytes that a device receives by each collective of a compiled program."""
    found: dict[str, list[int]] = {}
    for match in COLLECTIVE.finditer(text):
        bits = BITS.search(match["dtype"])
        width = max(1, int(bits[1]) // 8) if bits else 1  # pred has no number
        size = width * math.prod(int(n) for n in match["dims"].split(",") if n)
        group = GROUP.search(match["rest"])
        if group:
            one = group["one"] or ""
            members = int(group["size"] or group["all"] or one.count(",") + 1)
            size = size * (members - 1) // members  # the rest was there
        found.setdefault(match["name"], []).append(size)
    return found


def _cell(row: Row | None, shard: int) -> str:
    """Collectives of a program, and what they bring as a share of the shard."""
    if row is None:
        return "-"
    others = {n: c for n, c in row.collectives.items() if n != "collective-permute"}
    counts = [str(row.collectives.get("collective-permute", 0))]
    counts += [f"{count} {name}" for name, count in others.items()]
    wrong = ", wrong" if row.is_wrong else ""
    return f"{' + '.join(counts)}, {row.received / shard:.1%}{wrong}"


def _table(rows: Sequence[Row], passes: str) -> Any:
    devices = max(row.devices for row in rows)
    shard = 4 * math.prod(SHAPE) // devices
    known = {
        (r.kind, r.window, r.way, r.passes): r for r in rows if r.devices == devices
    }
    lines = []
    for kind in KINDS:
        for geometry in GEOMETRIES:
            cells = [known.get((kind, geometry.label, w, passes)) for w in WAYS]
            rows_read = geometry.halo * devices / SHAPE[1]
            shown = [_cell(row, shard) for row in cells]
            lines.append([f"{kind} {geometry.label}", f"{rows_read:.1%}", *shown])
    columns = ["pool", "rows needed", "jaxpool, jit", "jaxpool, halo", "lax, jit"]
    title = f"{passes}: permutes, bytes received / bytes of a shard, {devices} devices"
    return report.table(title, columns, lines)


def _conclude(rows: Sequence[Row]) -> list[str]:
    lines = []
    for way, (name, *_) in LOOKS.items():
        mine = [row for row in rows if row.devices > 1 and row.way == way]
        wrong = [row for row in mine if row.is_wrong]
        other = [row for row in mine if set(row.collectives) - {"collective-permute"}]
        lines.append(
            f"{name}: {len(wrong)} of {len(mine)} programs are wrong"
            f"{': ' if wrong else ''}{_names(wrong)}. "
            f"{len(other)} send by more than permutes"
            f"{': ' if other else ''}{_names(other)}."
        )
    return lines


def _names(rows: Sequence[Row]) -> str:
    """The pools of some rows, each once."""
    return ", ".join(dict.fromkeys(f"{r.kind} {r.window} {r.passes}" for r in rows))


def draw(job: report.Job, results: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Draw the figure of results that the JSON has."""
    return [_draw(job, [Row(**record) for record in results])]


def _draw(job: report.Job, rows: Sequence[Row]) -> Path:
    """Bytes received by each device, over the number of devices; wrong ones apart."""
    layout = [[f"{window} {passes}" for passes in PASSES] for window in DRAWN]
    figure, axes = figures.mosaic(layout, (10, 7), sharex=True, sharey=True)
    devices = sorted({row.devices for row in rows if row.devices > 1})
    for window, passes in itertools.product(DRAWN, PASSES):
        ax = axes[f"{window} {passes}"]
        shown = ("max", window, passes)
        mine = [r for r in rows if (r.kind, r.window, r.passes) == shown]
        for way, (name, color, marker, size) in LOOKS.items():
            look = {"color": color, "markersize": size, "fillstyle": "none"}
            of_way = [row for row in mine if row.way == way and row.devices > 1]
            right = [row for row in of_way if not row.is_wrong]
            wrong = [row for row in of_way if row.is_wrong]
            if right:
                ax.plot(*_points(right), marker=marker, label=name, **look)
            if wrong:
                look |= {"markeredgewidth": 3, "linestyle": ""}
                ax.plot(*_points(wrong), marker="x", label=f"{name}: wrong", **look)
        shards = [4 * math.prod(SHAPE) / n / 1024 for n in devices]
        ax.plot(devices, shards, "k:", label="the rows of one device")
        ax.grid()
        ax.set(xscale="log", yscale="log", title=f"Max {window}, {passes}")
        figures.plain_ticks(ax.xaxis, devices)
        figures.plain_ticks(ax.yaxis, (1, 3, 10, 30, 100, 300))
        if passes == PASSES[0]:
            ax.set_ylabel("KiB")
        if window == DRAWN[-1]:
            ax.set_xlabel("devices that share the rows")
    growth = {
        way: _growth([r for r in rows if r.way == way and r.devices > 1])
        for way in LOOKS
    }
    reach = f"From {devices[0]} to {devices[-1]} devices, each receives up to"
    ours, theirs = max(growth["jit"], growth["halo"]), growth["lax"]
    title = f"{reach} {ours:.1f} times as much by jaxpool, {theirs:.1f} times by lax"
    figures.headline(figure, title)
    figures.legend_below(*axes.values(), columns=3)
    return figures.save(figure, job, "scaling")


def _growth(rows: Sequence[Row]) -> float:
    """How many times as much a device of many receives as one of two, at most."""
    received = [
        [row.received for row in rows if (row.kind, row.window, row.passes) == shown]
        for shown in itertools.product(["max"], DRAWN, PASSES)
    ]
    return max((max(found) / min(found) for found in received if found), default=1)


def _points(rows: Sequence[Row]) -> tuple[list[int], list[float]]:
    """The numbers of devices, and the KiB received."""
    return [row.devices for row in rows], [row.received / 1024 for row in rows]
