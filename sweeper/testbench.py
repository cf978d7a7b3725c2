"""What was trained, on the test rows: measured once, timed alone, beside full fine-tuning of the backbone.

Everything runs in this process, one at a time, with nothing else on the device. What is measured is in the
ledger, and skipped once it is there.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sweeper.errors import SweeperError
from sweeper.finalists import FULL, LATENCY, label_of, parse_label
from sweeper.ledger.confirmation import CONFIRM
from sweeper.ledger.confirmation import FULL as FULL_PLACE
from sweeper.ledger.records import LeaseLost
from sweeper.pace import idle_seconds
from sweeper.terminal import duration, number

if TYPE_CHECKING:
    from torch import nn

    from adapters.pack import Pack
    from sweeper.console import Output
    from sweeper.data import Split, TaskData
    from sweeper.ledger import Claim, TrialView
    from sweeper.session import Session
    from sweeper.slot import Problem
    from sweeper.worker.heartbeat import Heartbeat

TIMED_TEXTS, WARM_UP_TEXTS = 50, 5
FULL_LEASE_SECONDS = 600.0
"""Of a run of the whole backbone, which shows no sign of life while it is evaluated."""
TELL_SECONDS = 60.0
"""How often it is said how far such a run is."""
_TRAINING = "rate"


@dataclass
class Bench:
    """Reads what was trained on the test rows, alone on its device.

    Args:
        pack: of one slot, over the study's backbone.
    """

    session: Session
    device: str
    data: TaskData
    problem: Problem
    pack: Pack

    @classmethod
    def of(cls, session: Session, device: str) -> Bench:
        from adapters.pack import Pack
        from sweeper.backbone import fingerprint, load_backbone
        from sweeper.device import keep_freed_memory
        from sweeper.session import check_same, load_data
        from sweeper.slot import Problem
        from sweeper.tasks import task_of

        keep_freed_memory()
        study, row = session.study, session.row
        data = load_data(study, session.home)
        check_same(row, fingerprint(study.backbone), data.fingerprint)
        problem = Problem.of(study, data.label_names)
        language_head = task_of(study.task.kind).language_head
        model = load_backbone(study.backbone, row.dtype, device, language_head)
        return cls(session, device, data, problem, Pack(model))

    @property
    def _test(self) -> Split:
        assert self.data.test is not None
        return self.data.test

    def read(self, out: Output) -> None:
        """Every trained place on the test rows, once; the first of each configuration is timed as well."""
        timed: set[str] = set()
        for view in self.session.ledger.confirmations(self.session.name):
            what, _ = parse_label(str(view.label))
            if view.kind != CONFIRM or view.state != "complete":
                if view.kind == CONFIRM:
                    out.note(f"{view.label} is {view.state} ({view.reason}): it is not counted")
                continue
            is_first = what not in timed
            timed.add(what)
            if f"test/{self.problem.metric}" not in view.metrics:
                adapter, head = self._weights(view)
                self.pack.put(0, adapter)
                measured = self._measured(self.pack, head, time_it=is_first)
                self.pack.clear(0)
                self.session.ledger.note_measured(view.place_id, measured)
                if f"test/{self.problem.metric}" not in measured:
                    out.note(f"{view.label} has no {self.problem.metric} on the test rows: it is not counted")

    def _weights(self, view: TrialView) -> tuple[Any, nn.Linear]:
        """Adapter (None for a head alone) and head as they were recorded.

        Raises:
            SweeperError: the files are not those that the ledger recorded.
        """
        import torch
        from safetensors.torch import load

        import adapters
        from sweeper.export.folders import verified
        from sweeper.task import linear

        artifacts = self.session.home.artifacts
        adapter = head = None
        for path, digest in view.files.items():
            content = verified(artifacts, path, digest)
            if path.endswith("adapter.safetensors"):
                adapter = adapters.load(artifacts / path).to(self.device).eval()
            elif path.endswith("head.safetensors"):
                tensors = load(content)
                head = linear(tensors["weight"], tensors["bias"])
        if head is None:
            raise SweeperError(f"{view.label} has no head.safetensors in the ledger: it cannot be confirmed")
        with torch.no_grad():
            return adapter, head.to(self.device)

    def _measured(self, pack: Pack, head: nn.Linear, time_it: bool) -> dict[str, float]:
        from sweeper.evaluate import predict_logits
        from sweeper.task import measure

        logits = predict_logits(pack, 0, head, self._test, self.problem.pooling)
        found = measure(self.problem.kind, logits, self._test, self.data.label_names)
        measured = {f"test/{name}": value for name, value in found.items() if value == value}
        return measured | ({LATENCY: self._latency_ms(pack, head)} if time_it else {})

    def _latency_ms(self, pack: Pack, head: nn.Linear) -> float:
        """Milliseconds for one text, alone on the device: the median over some, from tokens to outputs."""
        import torch

        from sweeper.batches import gather, gather_labels
        from sweeper.device import synchronize
        from sweeper.evaluate import kept_outputs

        device = torch.device(self.device)
        taken = []
        texts = min(len(self._test), WARM_UP_TEXTS + TIMED_TEXTS)
        with torch.no_grad():
            for index in torch.arange(texts).split(1):
                synchronize(device)
                started = time.perf_counter()
                batch = gather(self._test, index, device, pack.reads(0))
                labels = gather_labels(self._test, index, device)
                kept_outputs(pack, [(0, head, batch)], [labels], self.problem.pooling)
                synchronize(device)
                taken.append(1000.0 * (time.perf_counter() - started))
        return statistics.median(taken[WARM_UP_TEXTS:] or taken)

    def fine_tune(self, out: Output, seeds: int) -> None:
        """The whole backbone: a run for each learning rate, then the seeds at the best of them."""
        from sweeper import space
        from sweeper.finetune import RATES
        from sweeper.study.search import TRAIN_FIELDS

        ledger, name = self.session.ledger, self.session.name
        first = space.default_params(self.session.study, self.pack.hidden_size)
        training = {field: value for field, value in first.items() if field in TRAIN_FIELDS}
        rates = [
            (FULL_PLACE, label_of(FULL, f"{_TRAINING}{n}"), training | {"learning_rate": rate})
            for n, rate in enumerate(RATES)
        ]
        ledger.confirm(name, rates)
        self._run_all(out)
        sign = 1.0 if self.problem.maximize else -1.0
        tried = [
            view
            for view in ledger.confirmations(name)
            if view.kind == FULL_PLACE and _TRAINING in str(view.label) and view.objective is not None
        ]
        if not tried:
            out.note("full fine-tuning failed at every learning rate: it is left out")
            return
        begun = (view for view in ledger.confirmations(name) if view.label == label_of(FULL, 1))
        best = next(begun, None) or max(tried, key=lambda view: sign * (view.objective or 0.0))
        ledger.confirm(
            name, [(FULL_PLACE, label_of(FULL, seed), best.params) for seed in range(1, seeds + 1)]
        )
        self._run_all(out)

    def _run_all(self, out: Output) -> None:
        from sweeper.ledger import this_worker
        from sweeper.worker.heartbeat import Heartbeat

        ledger, name = self.session.ledger, self.session.name
        ledger.reap_dead(name, "handed_back")
        with Heartbeat(ledger, FULL_LEASE_SECONDS) as heartbeat:
            worker = this_worker(self.device)
            waits_since = None
            while not ledger.is_through(name, FULL_PLACE):
                claim = ledger.reserve(name, worker, FULL_LEASE_SECONDS, FULL_PLACE)
                if claim is None:  # another confirm holds what is left, and what follows is decided by all
                    if waits_since is None:
                        waits_since = time.monotonic()
                        out.note("waiting for what another confirm of this study fine-tunes")
                    time.sleep(idle_seconds(time.monotonic() - waits_since))
                    continue
                waits_since = None
                heartbeat.add(claim)
                try:
                    self._run(claim, _advancing(out, claim, heartbeat))
                except LeaseLost:
                    # Another confirm has it, since this one stood still; or its failure was recorded, and the
                    # confirmation of that was lost.
                    continue
                except BaseException:
                    with suppress(LeaseLost):
                        ledger.release(claim)
                    raise
                finally:
                    heartbeat.drop(claim)

    def _run(self, claim: Claim, advance: Callable[[int, int], None]) -> None:
        """One run of the whole backbone, read on the validation rows; on the test rows if its seed counts."""
        from adapters.pack import Pack
        from sweeper import space
        from sweeper.backbone import load_backbone
        from sweeper.device import is_out_of_memory
        from sweeper.evaluate import predict_logits
        from sweeper.finetune import fine_tune
        from sweeper.ledger import Attached, Result
        from sweeper.ledger.records import OUT_OF_MEMORY
        from sweeper.task import measure
        from sweeper.tasks import task_of
        from sweeper.train import first_line

        study, ledger, params = self.session.study, self.session.ledger, claim.fixed_params or {}
        _, seed = parse_label(str(claim.label))
        parameters = self.session.row.backbone_parameters
        ledger.attach(claim, Attached(None, None, params, str(claim.label)[:64], parameters, self._head_size))
        default = space.default_params(study, self.pack.hidden_size)
        config = replace(space.configuration(study, default).train, learning_rate=params["learning_rate"])
        dtype = "float64" if self.session.row.dtype == "float64" else "float32"
        language_head = task_of(study.task.kind).language_head
        model = load_backbone(study.backbone, dtype, self.device, language_head)
        started = time.perf_counter()
        try:
            head = fine_tune(
                model,
                self.data.train,
                self.problem,
                config,
                space.trial_seed(study, f"confirm-{seed}"),
                advance,
                half=self.session.row.dtype == "bfloat16",
            )
        except Exception as error:
            reason = first_line(error)
            if isinstance(error, FloatingPointError):
                ledger.record_result(claim, Result("failed", reason=reason))
            elif is_out_of_memory(error):
                ledger.fail(claim, OUT_OF_MEMORY, reason)
            else:
                raise
            return
        pack = Pack(model)
        pack.put(0, None)
        logits = predict_logits(pack, 0, head, self.data.validation, self.problem.pooling)
        found = measure(self.problem.kind, logits, self.data.validation, self.data.label_names)
        values = {name: value for name, value in found.items() if value == value}
        if seed.isdigit():
            values |= self._measured(pack, head, time_it=seed == "1")
        seconds = time.perf_counter() - started
        ledger.record_result(claim, Result("complete", values.get(self.problem.metric), values, seconds))

    @property
    def _head_size(self) -> int:
        return (self.pack.hidden_size + 1) * self.problem.outputs


def _advancing(out: Output, claim: Claim, heartbeat: Heartbeat) -> Callable[[int, int], None]:
    """Say that a run of the whole backbone begins; what is returned keeps it alive and says how far it is."""
    rate = number((claim.fixed_params or {})["learning_rate"])
    out.note(f"fine-tuning the whole backbone: {claim.label}, learning rate {rate}")
    started = told = time.monotonic()

    def advance(done: int, total: int) -> None:
        nonlocal told
        if heartbeat.is_lost(claim):
            raise LeaseLost(f"{claim.name} was taken from this process, which stood still")
        heartbeat.advance()
        heartbeat.step(claim, done, total)
        now = time.monotonic()
        if now - told >= TELL_SECONDS:
            told = now
            left = duration((now - started) / done * (total - done))
            out.note(f"{claim.label}: {done} of {total} steps, about {left} left", steps=done, of=total)

    return advance
