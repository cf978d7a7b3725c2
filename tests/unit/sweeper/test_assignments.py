"""``--set NAME=VALUE`` against the space of a study: what is read, and how what is wrong is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper.assignments import read_assignments
from sweeper.errors import UsageError
from sweeper.space import contains
from sweeper.study import Study, load_study
from tests.study_text import replaced, write_study_text


@pytest.fixture
def study(tmp_path: Path) -> Study:
    text = replaced("  scaling: 1.0\n", "  scaling: [0.5, 1.0, 4]\n  batch_size: [16, 32]\n")
    text = text.replace("  batch_size: 32\n", "")
    return load_study(write_study_text(tmp_path, text))


@pytest.mark.parametrize(
    ("written", "name", "value"),
    [
        ("bottleneck_dim=64", "bottleneck_dim", 64),
        (" bottleneck_dim = 4 ", "bottleneck_dim", 4),
        ("bottleneck_dim=256.0", "bottleneck_dim", 256),
        ("activation=gelu", "activation", "gelu"),
        ("layers=upper_half", "layers", "upper_half"),
        ("layers=[0,2,4]", "layers", "[0, 2, 4]"),
        ("layers=[0, 2, 4]", "layers", "[0, 2, 4]"),
        ("dropout=0.3", "dropout", 0.3),
        ("dropout=0", "dropout", 0.0),
        ("learning_rate=1e-3", "learning_rate", 0.001),
        ("scaling=4", "scaling", 4.0),
        ("scaling=0.50", "scaling", 0.5),
        ("batch_size=16", "batch_size", 16),
    ],
)
def test_a_value_is_read_as_the_store_keeps_it(study: Study, written: str, name: str, value: object) -> None:
    [(found, params)] = read_assignments(study, [written]).items()
    assert (found, params, type(params)) == (name, value, type(value))
    assert contains(name, study.search[name], params)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("bottleneck_dim", "takes NAME=VALUE, such as bottleneck_dim=64, not 'bottleneck_dim'"),
        ("=64", "takes NAME=VALUE"),
        ("bottleneck_dim=", "takes NAME=VALUE"),
        ("bottleneck_dmi=64", "'bottleneck_dmi' is no parameter that varies .* mean 'bottleneck_dim'"),
        ("reduction_factor=16", "did you mean 'bottleneck_dim'"),
        ("epochs=3", "'epochs' is no parameter that varies in this study; known: bottleneck_dim, activation"),
        ("initialization=zero_up", "initialization is zero_up in every trial .* vary: bottleneck_dim"),
        ("bottleneck_dim=257", "cannot be '257'; it is a whole number from 4 to 256"),
        ("bottleneck_dim=3", "a whole number from 4 to 256"),
        ("bottleneck_dim=64.5", "cannot be '64.5'; it is a whole number"),
        ("bottleneck_dim=many", "cannot be 'many'; it is a whole number"),
        ("bottleneck_dim=nan", "cannot be 'nan'"),
        ("bottleneck_dim=6_4", "cannot be '6_4'; it is a whole number"),
        ("bottleneck_dim=٦٤", "it is a whole number"),
        ("bottleneck_dim=inf", "cannot be 'inf'"),
        ("dropout=0.25", r"cannot be '0.25'; it is a number from 0.0 to 0.3 in steps of 0.1"),
        ("learning_rate=1", "it is a number from 0.0001 to 0.01"),
        ("activation=glu", r"activation cannot be 'glu' .* did you mean 'gelu'\? \(known: relu, gelu\)"),
        ("layers=[0, 2]", r"layers cannot be '\[0, 2\]'"),
        ("layers=0", r"layers cannot be '0' .* known: all, upper_half, \[0, 2, 4\]"),
        ("batch_size=24", "batch_size cannot be '24' in this study; known: 16, 32"),
        ("scaling=nan", "scaling cannot be 'nan'"),
        ("bottleneck_dim=1" + "0" * 400, "a whole number from 4 to 256"),
        ("layers=" + "[" * 100_000, "layers cannot be"),
    ],
)
def test_what_the_space_does_not_hold_is_refused(study: Study, written: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_assignments(study, ["placement=pfeiffer", written])
    assert caught.value.exit_code == 2


def test_a_parameter_is_set_once(study: Study) -> None:
    assert read_assignments(study, ["bottleneck_dim=8", "activation=relu"]) == {
        "bottleneck_dim": 8,
        "activation": "relu",
    }
    with pytest.raises(UsageError, match="names bottleneck_dim twice"):
        read_assignments(study, ["bottleneck_dim=8", "bottleneck_dim=9"])
