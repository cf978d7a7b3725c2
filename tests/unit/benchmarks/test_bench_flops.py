"""The closed form of a step's operations, against a counter that watches every product of a real step."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from adapters.architectures import sites
from adapters.config import AdapterConfig
from adapters.pack import Pack
from benchmarks.flops import Shape, forward_flops, shape_of, step_flops
from benchmarks.material import Material
from benchmarks.steps import Steps
from sweeper.slot import Job
from sweeper.trainconfig import TrainConfig
from tests.tiny_models import tiny_config

WIDTH, OUTPUTS, DIM = 32, 2, 5


def watched(material: Material, configs: list[AdapterConfig]) -> tuple[int, list[list[int]], Shape]:
    """All operations of one step, the lengths of each slot's texts, and the shape of the backbone."""
    model = material.load_backbone()
    jobs = [Job(n, n, 1, config, TrainConfig(batch_size=6), seed=n) for n, config in enumerate(configs)]
    steps = Steps(Pack(model, slots=len(jobs)), material, jobs)
    # Only the plain kernel shows its products.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        steps.run(1)
    [seen] = steps.seen
    return counter.get_total_flops(), [part.tolist() for part in seen], shape_of(model.config)


def trained_flops(config: AdapterConfig, layers: int, tokens: int, texts: int, joins: bool = False) -> int:
    """Of adapters and heads: each product forward, for its weight, and for its input where that is asked.

    Args:
        joins: the slot enters a run in which others are already, so that all its inputs are asked.
    """
    product = 2 * tokens * WIDTH * DIM
    modules = len(sites(config, layers))
    # What the lowest module reads depends on nothing that is trained; autograd sees that in a run of its own.
    return 6 * modules * product - (0 if joins else product) + 3 * 2 * texts * WIDTH * OUTPUTS


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.parametrize("placement", ["pfeiffer", "houlsby", "attention", "parallel"])
@pytest.mark.parametrize("layers", ["all", "upper_third"])
def test_a_step_costs_what_the_closed_form_says(
    make_material: Callable[[str], Material], family: str, placement: str, layers: str
) -> None:
    config = AdapterConfig(bottleneck_dim=DIM, placement=placement, layers=layers)
    counted, [lengths], shape = watched(make_material(family), [config])
    trained = trained_flops(config, shape.layers, sum(lengths), len(lengths))
    assert counted - trained == step_flops(shape, lengths, config)


def test_a_pack_costs_the_sum_of_its_trials(make_material: Callable[[str], Material]) -> None:
    configs = [
        AdapterConfig(bottleneck_dim=DIM, placement=placement, layers=layers)
        for placement, layers in [("houlsby", "all"), ("parallel", "all"), ("pfeiffer", "upper_third")]
    ]
    counted, parts, shape = watched(make_material("bert"), configs)
    pairs = list(zip(configs, parts, strict=True))
    trained = sum(
        trained_flops(config, shape.layers, sum(part), len(part), joins=config is not configs[0])
        for config, part in pairs
    )
    assert counted - trained == sum(step_flops(shape, part, config) for config, part in pairs)


def test_linears_alone_are_the_two_sums_of_the_design() -> None:
    shape = Shape(layers=6, width=384, ffn_width=1536)
    parameters, tokens, s = 4 * 384**2 + 2 * 384 * 1536, 100, 1
    # Texts of one token each: the products of attention are 4·d a layer and token, and twice that backward.
    attention = 4 * 384 * tokens * 6 + 8 * 384 * tokens * (6 - s)
    linears = (2 * parameters * 6 + 2 * parameters * (6 - s)) * tokens
    assert step_flops(shape, [1] * tokens, AdapterConfig(bottleneck_dim=24)) == linears + attention


def test_layers_that_are_passed_several_times_are_refused() -> None:
    with pytest.raises(ValueError, match="AlbertConfig passes its layers several times"):
        shape_of(tiny_config("albert", 2))


def test_layers_that_are_cached_cost_nothing() -> None:
    shape, lengths = Shape(6, 384, 1536), [3, 9, 40]
    config = AdapterConfig(bottleneck_dim=24, layers="upper_half")
    saved = step_flops(shape, lengths, config) - step_flops(shape, lengths, config, cached_layers=3)
    assert saved == forward_flops(shape, lengths, 3)
