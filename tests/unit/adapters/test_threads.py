"""Several threads run one model at once, each to its own result."""

import copy
import sys
import threading

import pytest
import torch

from adapters.config import AdapterConfig
from adapters.insert import insert
from tests.tiny_models import tiny_model

TEXTS = [torch.randint(5, 100, (4, 30), generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
ACROSS = AdapterConfig(bottleneck_dim=4, placement="attention:parallel")
LADDER = AdapterConfig(method="ladder", bottleneck_dim=4)


@pytest.fixture
def switching():
    """Threads take turns often."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def run(model, text):
    with torch.no_grad():
        return model(text).last_hidden_state


@pytest.mark.parametrize("config", [ACROSS, LADDER, AdapterConfig(bottleneck_dim=4, placement="houlsby")])
def test_threads_do_not_disturb_each_other(config, switching, fill):
    model = tiny_model("bert")
    fill(insert(model, config, generator=torch.Generator().manual_seed(0))).eval()
    expected = [run(model, text) for text in TEXTS]
    wrong = []

    def repeat(text, own):
        for _ in range(60):
            try:
                torch.testing.assert_close(run(model, text), own, rtol=0, atol=1e-5)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=repeat, args=pair) for pair in zip(TEXTS, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("config", [ACROSS, LADDER])
def test_a_copy_computes_the_same_apart(config, fill):
    model = tiny_model("bert")
    adapter = fill(insert(model, config, generator=torch.Generator().manual_seed(0))).eval()
    expected = run(model, TEXTS[0])
    twin = copy.deepcopy(model)
    fill(adapter, seed=1)
    assert torch.equal(run(twin, TEXTS[0]), expected)
    assert not torch.equal(run(model, TEXTS[0]), expected)
