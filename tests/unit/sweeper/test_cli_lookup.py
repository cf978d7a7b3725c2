"""Names that people type: of studies and of trials."""

from __future__ import annotations

import pytest

from sweeper.errors import UsageError
from sweeper.ledger import Ledger, NewStudy, TrialView
from sweeper.lookup import find_trial, study_name


def view(number=None, label=None):
    """A trial as the ledger gives it, with nothing but its names."""
    known = {"study": "sst2", "number": number, "label": label, "params": {}, "metrics": {}, "files": {}}
    return TrialView(**{**dict.fromkeys(TrialView.__dataclass_fields__), **known})


TRIALS = [view(label="reference-head"), view(0), view(7), view()]


@pytest.fixture
def store(tmp_path):
    """Makes a ledger with studies of some names."""

    def make(*names):
        ledger = Ledger(f"sqlite:///{tmp_path / 'store.db'}")
        ledger.create()
        for name in names:
            facts = dict.fromkeys(NewStudy.__dataclass_fields__, "")
            facts |= {"name": name, "spec": {}, "data_report": {}, "versions": {}}
            ledger.add_study(NewStudy(**{**facts, "backbone_parameters": 1, "label_names": None}))
        return ledger

    return make


@pytest.mark.parametrize("text", ["7", "0007", "trial-0007"])
def test_a_trial_is_found_by_its_number_in_any_form(text):
    assert find_trial(TRIALS, "sst2", text) is TRIALS[2]


def test_a_reference_is_found_by_its_label():
    assert find_trial(TRIALS, "sst2", "reference-head") is TRIALS[0]


@pytest.mark.parametrize("text", ["8", "-1", "x", "", "٧", "7.0", "9" * 400, "None"])
def test_another_is_refused_with_what_there_is(text):
    with pytest.raises(UsageError, match=r"trials 0 to 7.*reference-head"):
        find_trial(TRIALS, "sst2", text)


def test_the_name_of_a_study_is_itself(store):
    assert study_name(store("sst2", "trec"), "trec") == "trec"


@pytest.mark.parametrize("name", ["../sst2", "a/b", "", "SST2", "a" * 65, "sst2.yaml", "a\0b", "a b", "-x"])
def test_what_cannot_be_a_name_is_refused_before_anything_is_read(name, tmp_path):
    # There is no store here: reading it would be another error.
    with pytest.raises(UsageError, match="cannot be the name of a study"):
        study_name(Ledger(f"sqlite:///{tmp_path / 'missing' / 'store.db'}"), name)


def test_an_unknown_name_is_answered_with_the_nearest_or_with_all(store):
    with pytest.raises(UsageError, match="There is none yet"):
        study_name(store(), "films")
    ledger = store("trec", "sst2")
    with pytest.raises(UsageError, match="Did you mean 'sst2'"):
        study_name(ledger, "sts2")
    with pytest.raises(UsageError, match="The studies are sst2, trec"):
        study_name(ledger, "films")
