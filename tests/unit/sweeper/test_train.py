"""The training loop: events, determinism, pruning, divergence, failures, the meta device."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

import sweeper.evaluate
import sweeper.train
from adapters import AdapterConfig, build
from adapters.pack import Pack
from sweeper.data import Split, TaskData
from sweeper.evaluate import predict_logits
from sweeper.events import Evaluated, Event, Exhausted, Failed, Finished, HandedBack, Progress, Stepped
from sweeper.slot import Job, Problem, Slot, evaluation_steps, learning_rates, start
from sweeper.task import measure
from sweeper.train import _shares, step, train
from sweeper.trainconfig import TrainConfig
from tests.tiny_models import tiny_model

PROBLEM = Problem(kind="classification", pooling="mean", outputs=2, metric="accuracy", maximize=True)
CONFIG = TrainConfig(learning_rate=5e-3, epochs=3, batch_size=8)
ADAPTER = AdapterConfig(bottleneck_dim=8)


def split(texts: int, seed: int) -> Split:
    """Texts whose label says whether token 7 is in them."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 9, (texts,), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    ids = torch.randint(10, 40, (int(offsets[-1]),), generator=generator, dtype=torch.int32)
    labels = torch.randint(0, 2, (texts,), generator=generator)
    for start_, label in zip(offsets[:-1].tolist(), labels.tolist(), strict=True):
        if label:
            ids[start_ : start_ + 3] = 7
    return Split(input_ids=ids, token_type_ids=None, offsets=offsets, labels=labels)


DATA = TaskData(
    train=split(64, 0),
    validation=split(33, 1),
    test=None,
    label_names=("no", "yes"),
    fingerprint="x",
    report={},
)


def job(number: int = 0, **changes: object) -> Job:
    fields = {"adapter": ADAPTER, "train": CONFIG, "seed": 11, **changes}
    return Job(place_id=number, number=number, attempt=1, **fields)  # type: ignore[arg-type]


def supply(*jobs: Job) -> Callable[[], Job | None]:
    queue: Iterator[Job] = iter(jobs)
    return lambda: next(queue, None)


def run(
    *jobs: Job,
    slots: int = 1,
    dtype: torch.dtype = torch.float32,
    answer: Callable[[Event], None] = lambda _: None,
    problem: Problem = PROBLEM,
) -> list[Event]:
    events = []
    for event in train(Pack(tiny_model("bert").to(dtype), slots), DATA, problem, supply(*jobs), device="cpu"):
        answer(event)
        events.append(event)
    return events


def only(events: list[Event]) -> Finished:
    finished = [event for event in events if not isinstance(event, Progress | Evaluated | Stepped)]
    assert len(finished) == 1 and isinstance(finished[0], Finished), finished
    return finished[0]


def test_a_trial_learns_and_reports_every_epoch() -> None:
    events = run(job())
    evaluations = [event for event in events if isinstance(event, Evaluated)]
    assert [(e.evaluation, e.step, e.epoch) for e in evaluations] == [(1, 8, 1.0), (2, 16, 2.0), (3, 24, 3.0)]
    finished = only(events)
    assert (finished.outcome, finished.reason, finished.evaluation) == ("complete", None, 3)
    assert finished.metrics == evaluations[-1].metrics
    assert finished.metrics["accuracy"] > 0.9
    assert {
        "train/loss",
        "validation/loss",
        "learning_rate",
        "examples_per_second",
        "peak_memory_bytes",
    } <= set(finished.metrics)


def test_a_further_objective_that_is_not_finite_is_pruned_as_diverged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[dict[str, float]] = []

    def constant_in_the_end(*arguments: Any) -> dict[str, float]:
        taken.append({**measure(*arguments), **({"matthews": math.nan} if taken else {})})
        return taken[-1]

    monkeypatch.setattr(sweeper.train, "measure", constant_in_the_end)
    assert only(run(job())).outcome == "complete"
    taken.clear()
    finished = only(run(job(), problem=replace(PROBLEM, further=("matthews",))))
    assert (finished.outcome, finished.reason, finished.evaluation) == ("pruned", "diverged", 1)
    assert finished.metrics["matthews"] == taken[0]["matthews"]


def test_the_weights_handed_out_give_the_metrics_reported() -> None:
    finished = only(run(job()))
    pack = Pack(tiny_model("bert"))
    pack.put(0, finished.adapter)
    logits = predict_logits(pack, 0, finished.head, DATA.validation, "mean")
    again = measure("classification", logits, DATA.validation, DATA.label_names)
    assert again["accuracy"] == finished.metrics["accuracy"]
    assert again["loss"] == finished.metrics["validation/loss"]


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    dropout = replace(ADAPTER, dropout=0.2)
    first, second, other = (only(run(job(adapter=dropout, seed=seed))) for seed in (1, 1, 2))
    assert torch.equal(first.head.weight, second.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)


@pytest.mark.parametrize("training", [True, False])
def test_an_adapter_is_in_the_mode_in_which_it_was_before_it_was_evaluated(training: bool) -> None:
    model = tiny_model("bert")
    pack = Pack(model)
    config = replace(ADAPTER, dropout=0.3, stochastic_depth=0.3)
    adapter = build(config, model.config, torch.Generator().manual_seed(0)).train(training)
    pack.put(0, adapter)
    predict_logits(pack, 0, torch.nn.Linear(model.config.hidden_size, 2), DATA.validation, "mean")
    assert adapter.training == training


def test_training_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(job(adapter=replace(ADAPTER, dropout=0.2)))
    assert torch.equal(torch.rand(3), expected)


def test_packed_trials_equal_trials_alone() -> None:
    jobs = [
        job(0, seed=1),
        job(
            1,
            seed=2,
            adapter=AdapterConfig(
                bottleneck_dim=3, placement="parallel", initialization="normal", dropout=0.1
            ),
        ),
        job(2, seed=3, adapter=None, train=replace(CONFIG, epochs=1)),
        job(3, seed=4, train=replace(CONFIG, batch_size=5, epochs=2, schedule="cosine")),
        job(4, seed=5, adapter=AdapterConfig(bottleneck_dim=5, layers=(2,), placement="houlsby")),
    ]
    alone = {one.number: only(run(one, dtype=torch.float64)) for one in jobs}
    packed = [event for event in run(*jobs, slots=3, dtype=torch.float64) if isinstance(event, Finished)]
    assert sorted(event.job.number for event in packed) == [0, 1, 2, 3, 4]  # type: ignore[type-var]
    for event in packed:
        expected = alone[event.job.number]
        torch.testing.assert_close(event.head.weight, expected.head.weight, rtol=1e-9, atol=1e-12)
        assert math.isclose(
            event.metrics["validation/loss"], expected.metrics["validation/loss"], rel_tol=1e-9
        )


def test_a_pruned_trial_ends_at_its_evaluation_and_frees_its_slot() -> None:
    def prune_the_first(event: Event) -> None:
        if isinstance(event, Evaluated) and event.job.number == 0:
            event.stop = "pruned"

    finished = [event for event in run(job(0), job(1), answer=prune_the_first) if isinstance(event, Finished)]
    assert [(event.outcome, event.evaluation) for event in finished] == [("pruned", 1), ("complete", 3)]


def test_a_trial_handed_back_ends_without_a_result() -> None:
    def hand_back(event: Event) -> None:
        if isinstance(event, Progress):
            event.stop = "handed_back"

    events = run(job(train=replace(CONFIG, batch_size=2)), answer=hand_back)
    assert [type(event) for event in events if not isinstance(event, Stepped)] == [Progress, HandedBack]


@pytest.mark.filterwarnings("ignore")
def test_a_loss_that_is_not_finite_is_pruned_as_diverged() -> None:
    finished = only(run(job(train=replace(CONFIG, learning_rate=1e38, warmup=0.0))))
    assert (finished.outcome, finished.reason) == ("pruned", "diverged")
    assert finished.metrics == {}  # before its first evaluation


def test_a_trial_that_raises_fails_and_the_next_goes_on() -> None:
    bad = job(0, adapter=AdapterConfig(bottleneck_dim=8, layers=(99,)))
    events = run(bad, job(1))
    assert (
        isinstance(events[0], Failed) and "99" in events[0].reason and "Traceback" in events[0].traceback_text
    )
    assert isinstance(events[-2], Finished) and events[-2].job.number == 1


def test_keep_best_hands_out_the_best_evaluation() -> None:
    config = replace(CONFIG, epochs=6, keep="best", learning_rate=3e-2)
    events = run(job(train=config))
    accuracies = [event.metrics["accuracy"] for event in events if isinstance(event, Evaluated)]
    finished = only(events)
    assert finished.metrics["accuracy"] == max(accuracies)
    assert finished.evaluation == accuracies.index(max(accuracies)) + 1


def test_the_head_alone_trains_without_an_adapter() -> None:
    finished = only(run(job(adapter=None)))
    assert finished.adapter is None and finished.outcome == "complete"


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "gpt2"])
def test_a_step_leaves_no_tensor_behind_on_the_cpu(family: str) -> None:
    model = tiny_model(family).to("meta")
    pack = Pack(model, slots=2)
    device = torch.device("meta")
    slots = [
        start(pack, 0, job(0), DATA.train, PROBLEM, device),
        start(
            pack,
            1,
            job(1, adapter=AdapterConfig(bottleneck_dim=4, placement="houlsby")),
            DATA.train,
            PROBLEM,
            device,
        ),
    ]
    step(pack, slots, PROBLEM)
    for slot in slots:
        assert slot.step == 1 and slot.loss_sum.device == device
        assert all(parameter.device == device for parameter in slot.parameters)


def test_bfloat16_backbones_train_float32_adapters() -> None:
    finished = only(run(job(), dtype=torch.bfloat16))
    assert finished.head.weight.dtype == torch.float32
    assert finished.metrics["accuracy"] > 0.8


def test_rates_warm_up_and_go_down_to_the_last_step() -> None:
    rates = learning_rates(TrainConfig(learning_rate=1.0, warmup=0.2), 10)
    assert rates[:2] == [0.5, 1.0] and rates[2] == 1.0 and rates[-1] == pytest.approx(1 / 8)
    assert learning_rates(TrainConfig(learning_rate=1.0, warmup=0.0, schedule="constant"), 3) == [
        1.0,
        1.0,
        1.0,
    ]
    cosine = learning_rates(TrainConfig(learning_rate=1.0, warmup=0.0, schedule="cosine"), 4)
    assert cosine == sorted(cosine, reverse=True) and cosine[2] == pytest.approx(0.5)


def test_evaluations_lie_evenly_in_each_epoch() -> None:
    assert evaluation_steps(TrainConfig(epochs=2, evaluations_per_epoch=3), 7) == {
        3: 1,
        5: 2,
        7: 3,
        10: 4,
        12: 5,
        14: 6,
    }


def finished(events: list[Event]) -> dict[int | None, Finished]:
    return {event.job.number: event for event in events if isinstance(event, Finished)}


@pytest.mark.parametrize("what", ["step", "batch", "evaluation"])
def test_an_exception_of_one_trial_leaves_its_neighbours_alone(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [job(0, seed=1), job(1, seed=2, adapter=replace(ADAPTER, dropout=0.3)), job(2, seed=3)]
    alone = {number: only(run(job_)) for number, job_ in enumerate(jobs) if number != 0}
    break_the_first(what, monkeypatch)
    events = run(*jobs, slots=3)
    [failed] = [event for event in events if isinstance(event, Failed)]
    assert failed.job.number == 0 and failed.reason == "RuntimeError: broken on purpose"
    packed = finished(events)
    assert set(packed) == {1, 2}
    for number, expected in alone.items():
        assert torch.equal(packed[number].head.weight, expected.head.weight)
        assert packed[number].metrics["validation/loss"] == expected.metrics["validation/loss"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["diverged", "pruned"])
def test_a_trial_that_leaves_early_changes_neither_its_neighbour_nor_who_takes_its_slot(how: str) -> None:
    wild = replace(CONFIG, learning_rate=1e38, warmup=0.0) if how == "diverged" else CONFIG
    jobs = [
        job(0, seed=1, adapter=replace(ADAPTER, dropout=0.3)),
        job(1, seed=2, train=wild),
        job(2, seed=3, train=replace(CONFIG, batch_size=5)),
    ]
    alone = {number: only(run(jobs[number], dtype=torch.float64)) for number in (0, 2)}

    def answer(event: Event) -> None:
        if isinstance(event, Evaluated) and event.job.number == 1:
            event.stop = "pruned"

    events = run(*jobs, slots=2, dtype=torch.float64, answer=answer)
    packed = finished(events)
    assert (packed[1].outcome, packed[1].reason) == ("pruned", how if how == "diverged" else packed[1].reason)
    order = [event.job.number for event in events if isinstance(event, Finished)]
    assert order == [1, 0, 2]  # the third began in the middle of the first
    for number, expected in alone.items():
        torch.testing.assert_close(packed[number].head.weight, expected.head.weight, rtol=1e-9, atol=1e-12)
        for key in ("validation/loss", "accuracy"):
            assert math.isclose(packed[number].metrics[key], expected.metrics[key], rel_tol=1e-9)


def break_the_first(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trial 0 raise at its fifth step, in whatever runs it with others or alone."""

    def broken(slot: Slot) -> None:
        if slot.job.number == 0 and slot.step >= 5:
            raise RuntimeError("broken on purpose")

    if what == "evaluation":
        real_metrics = sweeper.evaluate.forward_head

        def forward_head(pack: Pack, parts: list, pooling: str) -> list[torch.Tensor]:
            if any(not torch.is_grad_enabled() and slot == 0 for slot, _, _ in parts):
                raise RuntimeError("broken on purpose")
            return real_metrics(pack, parts, pooling)

        monkeypatch.setattr(sweeper.evaluate, "forward_head", forward_head)
        return
    method = "update" if what == "step" else "next_batch"
    real = getattr(Slot, method)

    def called(self: Slot, *arguments: object) -> object:
        broken(self)
        return real(self, *arguments)

    monkeypatch.setattr(Slot, method, called)


def exhausting(slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device whose memory does not do for so many trials."""
    real = sweeper.train.forward_head

    def forward_head(pack: Pack, parts: list, pooling: str) -> list[torch.Tensor]:
        if len(parts) >= slots:
            raise torch.OutOfMemoryError("no room")
        return real(pack, parts, pooling)

    monkeypatch.setattr(sweeper.train, "forward_head", forward_head)


def test_a_pack_that_is_too_large_is_nobodys_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    exhausting(3, monkeypatch)
    waiting = [job(0), job(1), job(2)]
    limit = 3
    events = []
    pack = Pack(tiny_model("bert"), 3)

    def next_job() -> Job | None:
        return waiting.pop(0) if waiting and len(pack._adapters) < limit else None

    while waiting:
        for event in train(pack, DATA, PROBLEM, next_job, device="cpu"):
            if isinstance(event, Exhausted):
                assert event.reason == "OutOfMemoryError: no room" and not event.device_lost
                waiting += event.jobs
                limit = 2
            events.append(event)
    assert sum(isinstance(event, Exhausted) for event in events) == 1
    assert set(finished(events)) == {0, 1, 2}
    assert not any(isinstance(event, Failed) for event in events)


@pytest.mark.parametrize("slots", [1, 2])
def test_memory_is_given_back_when_nothing_holds_it_any_more(
    slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, graphs, held = [], [], []
    real_start, real_loss = sweeper.train.start, sweeper.train.loss

    def started(*arguments: Any) -> Slot:
        slot = real_start(*arguments)
        begun.append(weakref.ref(slot))
        return slot

    def no_room(*arguments: Any) -> torch.Tensor:
        found = real_loss(*arguments)
        graphs.append(weakref.ref(found))
        if len(graphs) % slots == 0:
            raise torch.OutOfMemoryError("on purpose")
        return found

    monkeypatch.setattr(sweeper.train, "start", started)
    monkeypatch.setattr(sweeper.train, "loss", no_room)
    monkeypatch.setattr(
        sweeper.train, "release_memory", lambda: held.append([one() for one in (*begun, *graphs)])
    )
    events = run(*(job(number, seed=number) for number in range(slots)), slots=slots)
    assert held == [[None] * 2 * slots]
    assert isinstance(events[-1], Exhausted if slots > 1 else Failed)


def test_a_trial_that_does_not_fit_alone_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    exhausting(1, monkeypatch)
    [failed] = [event for event in run(job()) if isinstance(event, Failed)]
    assert failed.reason == "OutOfMemoryError: no room"


def test_a_slot_is_charged_for_its_work_and_at_least_a_little() -> None:
    assert _shares({0: 30.0, 1: 10.0}) == {0: 0.75, 1: 0.25}
    assert _shares({0: 0.0, 3: 0.0}) == {0: 0.5, 3: 0.5}
    shares = _shares({0: 100.0, 1: 0.0})
    assert 0 < shares[1] < 0.01 and sum(shares.values()) == 1


def test_the_time_of_a_pack_is_shared_out_among_its_trials() -> None:
    jobs = [job(0), job(1, adapter=replace(ADAPTER, layers=(1, 2))), job(2, adapter=None)]
    events = run(*jobs, slots=3)
    finished = {event.job.place_id: event for event in events if isinstance(event, Finished)}
    spent = sum(event.seconds for event in events if isinstance(event, Stepped))
    assert sum(event.device_seconds for event in finished.values()) == pytest.approx(spent)
    assert finished[0].device_seconds > finished[1].device_seconds > finished[2].device_seconds > 0
