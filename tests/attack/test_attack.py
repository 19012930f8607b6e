"""The random attack, in short: its cases, and that it finds what is wrong."""

import pytest

import jaxpool
from tests.attack import attack


@pytest.mark.slow
@pytest.mark.parametrize("seed", [20_000, 20_050, 20_100, 20_150])
def test_random_calls_against_the_oracle(seed):
    reports = []
    kinds = attack.attack(seed, 50, together=25, report=reports.append)
    assert not kinds, "\n".join(reports)


def test_a_wrong_value_is_found_and_made_smaller(monkeypatch):
    """The attack can fail: averages that count one cell too many."""
    right = jaxpool.sum_pool

    def wrong(x, window, *args, **kwargs):
        return right(x, window, *args, **kwargs) * (1 if x.shape[0] < 2 else 2)

    monkeypatch.setattr(jaxpool, "sum_pool", wrong)
    case = attack.Case("sum_pool", 1, (5, 6), (0,), window=(2,), strides=(3,))
    case = attack.dataclasses.replace(case, dilation=(2,), ceil_mode=True)
    ((case, error),) = attack.run([case])
    small, _ = attack.shrunk(case, error)
    assert (small.shape, small.ceil_mode, small.dilation) == ((2,), False, (1,))
    assert "sum_pool(x, axes=(0,), window=" in attack.described(small)
