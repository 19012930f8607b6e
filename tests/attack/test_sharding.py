"""Pools of arrays that are split over devices: cases that failed, and random ones."""

import pytest

from tests.attack.sharding import Array, Case, draw, failure_of

SEED, CASES = 0, 24


def case(name, x, options, mesh, others=None, explicit=False, mode="both", data=1):
    return Case(name, x, options, others or {}, mesh, explicit, mode, data)


def row(identifier, *arguments, **options):
    return pytest.param(case(*arguments, **options), id=identifier)


def image(dtype, *shape, spec):
    return Array(shape, dtype, spec)


E1 = image("float16", 2, 4, 16, 1, spec=(None, "a", None, None))
E2 = {"window": (4, 4), "strides": (4, 4), "padding": "SAME", "axes": (1, 2)}
E3 = {
    "window": (3, 1),
    "strides": (3, 1),
    "padding": "SAME",
    "dilation": (2, 1),
    "axes": (1, 2),
    "p": 3,
    "ceil_mode": True,
}
FOUR = {"a": 4}
DILATED = {"axes": 0, "window": 3, "strides": 2, "dilation": 3}
FAILED = [
    row("E1_global_avg", "global_avg_pool", E1, {}, FOUR),
    row("E1_global_sum", "global_sum_pool", E1, {}, FOUR),
    row("E1_avg", "avg_pool", E1, {"window": (4, 16)}, FOUR),
    *(
        row(
            f"E2_{'explicit' if explicit else 'auto'}",
            "max_pool",
            image("bfloat16", 1, 20, 4, 4, spec=(None, None, "a", None)),
            E2 | {"implementation": "doubling"},
            FOUR,
            {"where": image("bool", 1, 1, 4, 1, spec=(None, None, None, None))},
            explicit=explicit,
        )
        for explicit in (False, True)
    ),
    row(
        "E3",
        "lp_pool",
        image("float16", 4, 20, 16, 4, spec=(None, "a", None, None)),
        E3 | {"implementation": "doubling"},
        FOUR,
    ),
    row(
        "E4_mask_that_is_not_split",
        "avg_pool",
        image("float32", 2, 4, 8, spec=("a", None, None)),
        {"window": 2, "axes": 1},
        {"a": 2, "b": 4},
        {"where": image("bool", 2, 4, 8, spec=(None, None, None))},
        explicit=True,
    ),
    row(
        "E4_mask_that_is_split_otherwise",
        "max_pool",
        image("float32", 2, 4, 8, spec=("a", None, None)),
        {"window": 2, "axes": 1},
        {"a": 2, "b": 4},
        {"where": image("bool", 1, 4, 8, spec=(None, "a", "b"))},
        explicit=True,
    ),
    row(
        "E4_cotangent_of_a_mask_that_is_split_otherwise",
        "avg_pool",
        image("float32", 2, 4, 1, 8, spec=(None, "a", None, None)),
        {"window": 4, "axes": 1},
        {"a": 4, "b": 2},
        {"where": image("bool", 2, 4, 1, 8, spec=("b", None, None, None))},
        explicit=True,
    ),
    row(
        "E4_axis_of_one_cell_that_is_split",
        "lp_pool",
        image("float32", 2, 1, 1, 8, spec=(None, "b", None, None)),
        {"window": 1, "axes": 1, "p": 2},
        {"a": 2, "b": 1},
        {"where": image("bool", 2, 1, 1, 1, spec=("a", None, None, None))},
        explicit=True,
    ),
    row(
        "E4_one_cell_that_is_left_of_a_split_axis",
        "global_lp_pool",
        image("float32", 1, 16, 4, spec=("b", None, "a")),
        {"axes": (0, 1), "p": 2, "keepdims": False},
        {"a": 4, "b": 1},
        explicit=True,
    ),
    row(
        "E4_windows_that_do_not_divide_and_span_the_axis",
        "min_pool_with_indices",
        image("float32", 16, spec=("a",)),
        {"window": 16, "strides": 3, "padding": ((13, 3),), "axes": 0}
        | {"implementation": "reduce_window"},
        FOUR,
        explicit=True,
    ),
    *(
        row(f"E5_{name}_{cells}", f"global_{name}_pool", x, {}, FOUR)
        for name in ("avg", "max")
        for cells, x in {
            2: image("float32", 2, 8, 6, 3, spec=(None, "a", None, None)),
            3: image("float32", 1, 12, 4, spec=(None, "a", None)),
        }.items()
    ),
    *(
        row(
            f"E6_{dtype}",
            "global_max_pool",
            image(dtype, 2, 6, 4, 2, spec=(None, None, "a", None)),
            {},
            FOUR,
            mode="value" if dtype == "int8" else "both",
        )
        for dtype in ("int8", "bfloat16")
    ),
    row(
        "one_window_of_xla_with_padding",
        "sum_pool",
        image("float32", 12, spec=("a",)),
        {"window": 12, "strides": 2, "padding": ((1, 0),), "axes": 0}
        | {"implementation": "reduce_window"},
        FOUR,
    ),
    row(
        "repeated_windows_of_few_cells_a_shard",
        "min_pool",
        image("float32", 32, spec=("a",)),
        {"window": 9, "strides": 2, "dilation": 2, "padding": "CAUSAL", "axes": 0}
        | {"ceil_mode": True, "implementation": "reduce_window"},
        FOUR,
        {"where": image("bool", 32, spec=("a",))},
    ),
    row(
        "spread_windows_beyond_the_next_shard",
        "sum_pool",
        image("float32", 24, spec=("a",)),
        {"window": 16, "strides": 2, "dilation": 2, "padding": "SAME", "axes": 0}
        | {"implementation": "reduce_window"},
        FOUR,
        explicit=True,
        mode="grad",
    ),
    row(
        "cotangents_that_do_not_divide",
        "pool",
        image("float32", 24, spec=("a",)),
        DILATED | {"op": "add"},
        {"a": 8},
        explicit=True,
    ),
    row(
        "cotangents_that_do_not_divide_by_name",
        "sum_pool",
        image("float32", 24, spec=("a",)),
        DILATED | {"implementation": "reduce_window"},
        {"a": 8},
        explicit=True,
        mode="grad",
    ),
    row(
        "winners_of_single_cells",
        "adaptive_max_pool_with_indices",
        image("float32", 1, 4, 4, spec=(None, None, "a")),
        {"output_shape": 1, "axes": 0},
        FOUR,
        explicit=True,
    ),
]


@pytest.mark.parametrize("failed", FAILED)
def test_cases_that_failed(failed):
    failure = failure_of(failed)
    assert failure is None, f"{failed}\n{failure}"


@pytest.mark.parametrize("number", range(CASES))
def test_random_cases(number):
    drawn = draw(SEED, number)
    failure = failure_of(drawn)
    assert failure is None, f"seed {SEED}, number {number}: {drawn}\n{failure}"
